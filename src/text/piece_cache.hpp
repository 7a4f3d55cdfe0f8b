// A cache from a piece of text to its ids. Words repeat, so most pieces are found here and the model
// runs for few of them. A cache serves one thread at a time; the pool hands them out.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer.hpp"

namespace sinew {

class PieceCache {
 public:
  static constexpr std::size_t kLongestPiece = 64;  // bytes; longer pieces seldom repeat

  PieceCache();
  // Null when `piece` is not there.
  const std::span<const TokenId>* find(std::string_view piece, std::uint64_t hash);
  void insert(std::string_view piece, std::uint64_t hash, std::span<const TokenId> ids);
  static std::uint64_t hash(std::string_view piece);

 private:
  struct Slot {
    std::uint64_t hash = 0;
    std::uint32_t text = 0, ids = 0;  // offsets into texts_ and ids_
    std::uint16_t text_size = 0, ids_size = 0;
    bool used = false;
  };
  std::vector<Slot> slots_;
  std::string texts_;
  std::vector<TokenId> ids_;
  std::size_t used_ = 0;
  std::span<const TokenId> found_;
  void clear();
};

class PieceCachePool {
 public:
  // A cache for the caller alone until the lease ends.
  class Lease {
   public:
    explicit Lease(const PieceCachePool& pool) : pool_(pool), cache_(pool.take()) {}
    ~Lease() { pool_.give(std::move(cache_)); }
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    PieceCache& operator*() { return *cache_; }

   private:
    const PieceCachePool& pool_;
    std::unique_ptr<PieceCache> cache_;
  };

 private:
  mutable std::mutex mutex_;
  mutable std::vector<std::unique_ptr<PieceCache>> free_;
  std::unique_ptr<PieceCache> take() const;
  void give(std::unique_ptr<PieceCache> cache) const;
};

}  // namespace sinew
