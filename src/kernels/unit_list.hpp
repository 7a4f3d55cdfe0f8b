// Units of work of several things in a row (tiles of products, spans of networks), numbered through.
#pragma once

#include <iterator>
#include <utility>

#include "kernels/gemm.hpp"

namespace sinew {

constexpr index_t units(index_t count, index_t unit) { return (count + unit - 1) / unit; }

// `units_of(item)`: how many an item has.
template <class Items, class Units>
index_t count_units(const Items& items, const Units& units_of) {
  index_t count = 0;
  for (const auto& item : items) count += units_of(item);
  return count;
}

// Whose unit number `unit` is, and its number there.
template <class Items, class Units>
auto find_unit(const Items& items, const Units& units_of, index_t unit) {
  auto item = std::data(items);
  for (; unit >= units_of(*item); ++item) unit -= units_of(*item);
  return std::pair{item, unit};
}

}  // namespace sinew
