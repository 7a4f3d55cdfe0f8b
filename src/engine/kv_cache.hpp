// Keys and values that attention keeps, in pages of 32 tokens that sequences take from one pool; sequences
// with a common beginning share its pages. MLA keeps one latent of kv_lora_rank + qk_rope_head_dim numbers a
// token and layer; GQA a key and a value for each key-value head.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "config/model_config.hpp"
#include "kernels/block_formats.hpp"
#include "kernels/gemm.hpp"

namespace sinew::engine {

enum class KvType { f32, f16, bf16, q8, q4 };  // q8 and q4: blocks of 32 as ggml's Q8_0 and Q4_0
KvType parse_kv_type(std::string_view name);   // "f32", "f16", "bf16", "q8", "q4"; throws UserError
std::string_view kv_type_name(KvType type);
BlockFormat kv_format(KvType type);

inline constexpr index_t kPage = kTile;  // tokens of a page

class KvPool {
 public:
  // Room for `tokens` tokens (in whole pages) of all `layers` layers. Memory is touched page by page, as it
  // is used. Throws UserError when the type does not fit the model's head sizes.
  KvPool(const ModelConfig& config, index_t layers, KvType type, index_t tokens);
  ~KvPool();
  KvPool(const KvPool&) = delete;
  KvPool& operator=(const KvPool&) = delete;

  KvType type() const { return type_; }
  index_t heads() const { return heads_; }  // kept a token and layer: MLA 1
  index_t key() const { return key_; }      // elements of a key: MLA the whole latent
  index_t value() const { return value_; }  // elements of a value: MLA 0, values are the latent's first part
  std::size_t bytes_per_token() const { return page_bytes_ / kPage; }
  index_t pages() const { return static_cast<index_t>(users_.size()); }
  index_t free_pages() const { return static_cast<index_t>(free_.size()); }

  // Rows of one page, layer and head: kPage of them, `row` bytes each.
  struct Rows {
    std::byte* data;
    std::size_t row;
  };
  Rows keys(std::int32_t page, index_t layer, index_t head) const;
  Rows values(std::int32_t page, index_t layer, index_t head) const;

 private:
  friend class Sequence;
  std::int32_t take();  // zeroed, used once; throws UserError when none is left
  std::int32_t copy(std::int32_t page);
  void share(std::int32_t page) { ++users_[static_cast<std::size_t>(page)]; }
  void drop(std::int32_t page);
  // All pages of one layer and head lie side by side: a text's rows are mostly one run of memory.
  std::size_t part_bytes() const { return kPage * (key_row_ + value_row_); }
  std::byte* at(std::int32_t page, index_t part) const {
    return data_ +
           (static_cast<std::size_t>(part) * users_.size() + static_cast<std::size_t>(page)) * part_bytes();
  }

  KvType type_;
  index_t heads_, key_, value_, layers_;
  std::size_t key_row_, value_row_, page_bytes_;
  std::byte* data_ = nullptr;
  std::vector<std::int32_t> users_, free_;
  std::vector<bool> used_;  // has been written to
};

// The tokens of one text that the pool holds. Moves, does not copy; fork() shares.
class Sequence {
 public:
  explicit Sequence(std::shared_ptr<KvPool> pool);
  ~Sequence();
  Sequence(Sequence&& other) noexcept;
  Sequence& operator=(Sequence&& other) noexcept;
  Sequence(const Sequence&) = delete;
  Sequence& operator=(const Sequence&) = delete;

  index_t length() const { return length_; }
  void truncate(index_t length);        // forgets what is after
  Sequence fork(index_t length) const;  // another text with the same first `length` tokens

  // For the forward pass: pages for `count` tokens after length(), unshared; then the tokens count as held.
  void reserve(index_t count);
  void advance(index_t count) { length_ += count; }
  const std::int32_t* page_table() const { return pages_.data(); }
  const KvPool& pool() const { return *pool_; }

 private:
  std::shared_ptr<KvPool> pool_;
  std::vector<std::int32_t> pages_;
  index_t length_ = 0;
};

}  // namespace sinew::engine
