// Checksums of files and buffers: XXH3, 64 bits, written as 16 hexadecimal digits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace sinew {

std::uint64_t xxh3(const void* data, std::size_t size);
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
