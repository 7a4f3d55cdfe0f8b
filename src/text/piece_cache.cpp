#include "text/piece_cache.hpp"

#include <cstring>
#include <utility>

namespace sinew {
namespace {

constexpr std::size_t kSlots = 1 << 16;  // a power of two; emptied when three quarters are used

std::uint64_t mix(std::uint64_t a, std::uint64_t b) {
  const auto product = static_cast<unsigned __int128>(a) * b;
  return static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64);
}

}  // namespace

// Eight bytes at a time, folded by a 128-bit product.
std::uint64_t PieceCache::hash(std::string_view piece) {
  constexpr std::uint64_t kOdd = 0x9E3779B97F4A7C15u, kOther = 0xD6E8FEB86659FD93u;
  std::uint64_t state = piece.size() * kOdd;
  const char* data = piece.data();
  std::size_t left = piece.size();
  for (; left >= 8; left -= 8, data += 8) {
    std::uint64_t word;
    std::memcpy(&word, data, 8);
    state = mix(state ^ word, kOdd);
  }
  std::uint64_t word = 0;
  if (left > 0) std::memcpy(&word, data, left);
  return mix(state ^ word, kOther);
}

PieceCache::PieceCache() : slots_(kSlots) {}

void PieceCache::clear() {
  slots_.assign(kSlots, Slot{});
  texts_.clear();
  ids_.clear();
  used_ = 0;
}

const std::span<const TokenId>* PieceCache::find(std::string_view piece, std::uint64_t hash) {
  for (std::size_t i = hash & (kSlots - 1);; i = (i + 1) & (kSlots - 1)) {
    const Slot& slot = slots_[i];
    if (!slot.used) return nullptr;
    if (slot.hash == hash && slot.text_size == piece.size() &&
        std::memcmp(texts_.data() + slot.text, piece.data(), piece.size()) == 0) {
      found_ = {ids_.data() + slot.ids, slot.ids_size};
      return &found_;
    }
  }
}

void PieceCache::insert(std::string_view piece, std::uint64_t hash, std::span<const TokenId> ids) {
  if (used_ >= kSlots / 4 * 3) clear();
  std::size_t i = hash & (kSlots - 1);
  while (slots_[i].used) i = (i + 1) & (kSlots - 1);
  slots_[i] = {hash,
               static_cast<std::uint32_t>(texts_.size()),
               static_cast<std::uint32_t>(ids_.size()),
               static_cast<std::uint16_t>(piece.size()),
               static_cast<std::uint16_t>(ids.size()),
               true};
  texts_ += piece;
  ids_.insert(ids_.end(), ids.begin(), ids.end());
  ++used_;
}

std::unique_ptr<PieceCache> PieceCachePool::take() const {
  const std::lock_guard lock(mutex_);
  if (free_.empty()) return std::make_unique<PieceCache>();
  auto cache = std::move(free_.back());
  free_.pop_back();
  return cache;
}

void PieceCachePool::give(std::unique_ptr<PieceCache> cache) const {
  const std::lock_guard lock(mutex_);
  free_.push_back(std::move(cache));
}

}  // namespace sinew
