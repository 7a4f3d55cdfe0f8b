#include "base/checksum.hpp"

#include <fmt/format.h>
#include <xxhash.h>

namespace sinew {

std::uint64_t xxh3(const void* data, std::size_t size) { return XXH3_64bits(data, size); }

Hash128 xxh3_128(const void* data, std::size_t size) {
  const XXH128_hash_t hash = XXH3_128bits(data, size);
  return {hash.high64, hash.low64};
}

std::string hex64(std::uint64_t value) { return fmt::format("{:016x}", value); }

struct Hasher::State {
  XXH3_state_t* xxh = XXH3_createState();
  ~State() { XXH3_freeState(xxh); }
};

Hasher::Hasher() : state_(std::make_unique<State>()) { XXH3_64bits_reset(state_->xxh); }
Hasher::~Hasher() = default;
void Hasher::update(const void* data, std::size_t size) { XXH3_64bits_update(state_->xxh, data, size); }
std::uint64_t Hasher::digest() const { return XXH3_64bits_digest(state_->xxh); }

}  // namespace sinew
