#include "engine/kv_cache.hpp"

#include <sys/mman.h>

#include <cstring>
#include <utility>

#include "base/error.hpp"
#include "base/index.hpp"
#include "base/text.hpp"

namespace sinew::engine {
namespace {

struct TypeName {
  KvType type;
  std::string_view name;
  BlockFormat format;
};
constexpr TypeName kTypes[] = {{KvType::f32, "f32", BlockFormat::f32},
                               {KvType::f16, "f16", BlockFormat::f16},
                               {KvType::bf16, "bf16", BlockFormat::bf16},
                               {KvType::q8, "q8", BlockFormat::q8_0},
                               {KvType::q4, "q4", BlockFormat::q4_0}};

std::size_t row_bytes(KvType type, index_t elements) {
  const BlockInfo& info = block_info(kv_format(type));
  require(elements % static_cast<index_t>(info.elements) == 0,
          "a {} cache needs heads of a multiple of {} numbers, this model's have {}: use f16",
          kv_type_name(type), info.elements, elements);
  return block_bytes(info.format, size(elements));
}

}  // namespace

KvType parse_kv_type(std::string_view name) {
  for (const TypeName& known : kTypes)
    if (known.name == name) return known.type;
  fail("cache type '{}': one of f32, f16, bf16, q8, q4", name);
}

std::string_view kv_type_name(KvType type) { return kTypes[static_cast<std::size_t>(type)].name; }
BlockFormat kv_format(KvType type) { return kTypes[static_cast<std::size_t>(type)].format; }

KvPool::KvPool(const ModelConfig& config, index_t layers, KvType type, index_t tokens)
    : type_(type),
      heads_(config.attention == Attention::mla ? 1 : config.num_key_value_heads),
      key_(config.attention == Attention::mla ? config.kv_lora_rank + config.qk_rope_head_dim
                                              : config.head_dim),
      value_(config.attention == Attention::mla ? 0 : config.head_dim),
      layers_(layers),
      key_row_(row_bytes(type, key_)),
      value_row_(row_bytes(type, value_)),
      page_bytes_(size(layers * heads_ * kPage) * (key_row_ + value_row_)) {
  require(tokens > 0, "a cache of {} tokens", tokens);
  const index_t count = (tokens + kPage - 1) / kPage;
  void* const data = ::mmap(nullptr, size(count) * page_bytes_, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  require(data != MAP_FAILED, "no memory for a cache of {} tokens ({}): use a shorter context or --kv q8",
          tokens, human_bytes(static_cast<double>(size(count) * page_bytes_)));
  ::madvise(data, size(count) * page_bytes_, MADV_HUGEPAGE);
  data_ = static_cast<std::byte*>(data);
  users_.assign(size(count), 0);
  used_.assign(size(count), false);
  for (index_t i = count; i-- > 0;) free_.push_back(static_cast<std::int32_t>(i));
}

KvPool::~KvPool() { ::munmap(data_, users_.size() * page_bytes_); }

KvPool::Rows KvPool::keys(std::int32_t number, index_t layer, index_t head) const {
  return {at(number, layer * heads_ + head), key_row_};
}

KvPool::Rows KvPool::values(std::int32_t number, index_t layer, index_t head) const {
  if (value_ == 0) return keys(number, layer, head);
  return {keys(number, layer, head).data + size(kPage) * key_row_, value_row_};
}

// What lies beyond the last token of a page is multiplied by zero: it must be numbers.
std::int32_t KvPool::take() {
  require(!free_.empty(), "the cache of {} tokens is full: use a longer context", pages() * kPage);
  const std::int32_t number = free_.back();
  free_.pop_back();
  users_[size(number)] = 1;
  if (used_[size(number)])
    for (index_t i = 0; i < layers_ * heads_; ++i) std::memset(at(number, i), 0, part_bytes());
  used_[size(number)] = true;
  return number;
}

std::int32_t KvPool::copy(std::int32_t from) {
  const std::int32_t to = take();
  for (index_t i = 0; i < layers_ * heads_; ++i) std::memcpy(at(to, i), at(from, i), part_bytes());
  return to;
}

void KvPool::drop(std::int32_t number) {
  if (--users_[size(number)] == 0) free_.push_back(number);
}

Sequence::Sequence(std::shared_ptr<KvPool> pool) : pool_(std::move(pool)) {
  pages_.reserve(pool_->users_.size());
}

Sequence::~Sequence() {
  if (pool_ != nullptr) truncate(0);
}

Sequence::Sequence(Sequence&& other) noexcept
    : pool_(std::move(other.pool_)),
      pages_(std::move(other.pages_)),
      length_(std::exchange(other.length_, 0)) {
  other.pages_.clear();
}

Sequence& Sequence::operator=(Sequence&& other) noexcept {
  std::swap(pool_, other.pool_);
  std::swap(pages_, other.pages_);
  std::swap(length_, other.length_);
  return *this;
}

void Sequence::truncate(index_t length) {
  ensure(length >= 0 && length <= length_, "truncate to {} of {} tokens", length, length_);
  length_ = length;
  while (static_cast<index_t>(pages_.size()) * kPage >= length + kPage) {
    pool_->drop(pages_.back());
    pages_.pop_back();
  }
}

Sequence Sequence::fork(index_t length) const {
  ensure(length >= 0 && length <= length_, "fork at {} of {} tokens", length, length_);
  Sequence other(pool_);
  for (index_t at = 0; at < length; at += kPage) {
    const std::int32_t page = pages_[size(at / kPage)];
    pool_->share(page);
    other.pages_.push_back(page);
  }
  other.length_ = length;
  return other;
}

void Sequence::reserve(index_t count) {
  if (count == 0) return;
  if (length_ % kPage != 0) {  // the last page is written to
    std::int32_t& last = pages_[size(length_ / kPage)];
    if (pool_->users_[size(last)] > 1) {
      const std::int32_t own = pool_->copy(last);
      pool_->drop(std::exchange(last, own));
    }
  }
  while (static_cast<index_t>(pages_.size()) * kPage < length_ + count) pages_.push_back(pool_->take());
}

}  // namespace sinew::engine
