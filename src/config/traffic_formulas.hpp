// How many bytes one rank sends in each collective, as closed formulas (docs/communication.md). `n` is the
// number of members, `rank` the sender, sizes are elements of `width` bytes.
#pragma once

#include <cstdint>

#include "config/layout.hpp"

namespace sinew {

// Up to this many elements an all-reduce is one exchange of everything, above it a reduce-scatter and an
// all-gather.
inline constexpr std::int64_t kSmallReduction = 1024;

constexpr std::int64_t all_gather_bytes(std::int64_t piece, std::int64_t n, std::int64_t width) {
  return (n - 1) * piece * width;
}
constexpr std::int64_t reduce_scatter_bytes(std::int64_t piece, std::int64_t n, std::int64_t width) {
  return (n - 1) * piece * width;
}
constexpr std::int64_t all_reduce_bytes(std::int64_t elements, std::int64_t n, std::int64_t rank,
                                        std::int64_t width) {
  if (elements <= kSmallReduction) return (n - 1) * elements * width;
  const auto own = part_begin(elements, n, rank + 1) - part_begin(elements, n, rank);
  return (elements - own + (n - 1) * own) * width;
}

}  // namespace sinew
