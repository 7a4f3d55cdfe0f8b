// Bare reading of memory, on all threads: nothing is done with it, so nothing can read it faster.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace sinew {

using MemoryRange = std::span<const std::byte>;

// How each thread goes through its share.
struct ReadPattern {
  int streams = 1;       // read side by side
  std::size_t far = 0;   // bytes ahead that are fetched into the second-level cache; 0: none
  std::size_t near = 0;  // .. and into the first
};

// Reads every byte of the ranges once; each thread takes an equal share of them, in their order. Returns the
// xor of all bytes, each at its place modulo 8 in its range.
std::uint64_t read_memory(std::span<const MemoryRange> ranges, const ReadPattern& pattern);

}  // namespace sinew
