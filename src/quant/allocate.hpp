// Bit allocation: one choice for each tensor so that the sum of costs is least within a budget of bytes
// (multiple-choice knapsack).
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace sinew {

struct FormatChoice {
  std::uint64_t bytes = 0;
  double cost = 0;
};

// For each item the number of the chosen one of its choices. The result fits the budget; it is the better of
// dynamic programming over a grid of bytes and of the steepest descent along each item's convex hull, both
// filled up with whatever single changes still fit. Empty when even the smallest choices do not fit.
std::vector<std::size_t> allocate(const std::vector<std::vector<FormatChoice>>& items, std::uint64_t budget);

}  // namespace sinew
