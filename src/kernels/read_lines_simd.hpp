// Reading every byte of a range, compiled once for each width of vectors: a line should be one load, since
// how many lines are on their way depends on how many instructions each takes (Zen 5, two threads: 35 GB/s
// with four loads and a test a line, 73 with one load and nothing else).
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "kernels/read_memory.hpp"

namespace sinew {

#if defined(__x86_64__)
std::uint64_t read_range_avx512(MemoryRange range, const ReadPattern& pattern);
#endif

namespace {

constexpr std::size_t kTurn = 256;  // bytes of one stream before the next one's turn

typedef std::uint64_t Line __attribute__((vector_size(64)));

template <bool Far, bool Near>
[[gnu::always_inline]] inline void read_streams(const std::byte* data, std::size_t run,
                                                const ReadPattern& pattern, Line& sum) {
  const auto streams = static_cast<std::size_t>(pattern.streams);
  for (std::size_t i = 0; i < run; i += kTurn)
    for (std::size_t s = 0; s < streams; ++s) {
      const std::byte* const p = data + s * run + i;
#pragma GCC unroll 4
      for (std::size_t j = 0; j < kTurn; j += 64) {
        if constexpr (Far) __builtin_prefetch(p + j + pattern.far, 0, 2);
        if constexpr (Near) __builtin_prefetch(p + j + pattern.near, 0, 3);
        Line line;
        std::memcpy(&line, p + j, sizeof line);
        sum ^= line;
      }
    }
}

// The xor of all bytes of `range`, each at its place modulo 8: it begins at a multiple of 8 bytes of what it
// was cut from.
std::uint64_t read_range_lines(MemoryRange range, const ReadPattern& pattern) {
  Line sum{};
  const auto streams = static_cast<std::size_t>(pattern.streams);
  const std::size_t run = range.size() / streams / kTurn * kTurn;
  if (pattern.far == 0 && pattern.near == 0)
    read_streams<false, false>(range.data(), run, pattern, sum);
  else if (pattern.near == 0)
    read_streams<true, false>(range.data(), run, pattern, sum);
  else
    read_streams<true, true>(range.data(), run, pattern, sum);
  std::uint64_t total = 0;
  for (int i = 0; i < 8; ++i) total ^= sum[i];
  for (std::size_t i = run * streams; i < range.size(); i += 8) {
    std::uint64_t word = 0;
    std::memcpy(&word, range.data() + i, std::min<std::size_t>(8, range.size() - i));
    total ^= word;
  }
  return total;
}

}  // namespace
}  // namespace sinew
