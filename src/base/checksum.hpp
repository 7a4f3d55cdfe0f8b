// Checksums of files and buffers: XXH3, 64 bits, written as 16 hexadecimal digits.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace sinew {

std::uint64_t xxh3(const void* data, std::size_t size);

// XXH3, 128 bits: wide enough to tell any two texts of a corpus apart.
struct Hash128 {
  std::uint64_t high = 0, low = 0;
  auto operator<=>(const Hash128&) const = default;
};
Hash128 xxh3_128(const void* data, std::size_t size);

std::string hex64(std::uint64_t value);

// The same hash over pieces.
class Hasher {
 public:
  Hasher();
  ~Hasher();
  void update(const void* data, std::size_t size);
  std::uint64_t digest() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace sinew
