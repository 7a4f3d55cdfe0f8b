// The largest numbers of many rows at once, a row in each lane: no branch depends on the numbers. See
// simd.hpp for how to include it.
#pragma once

#include <algorithm>
#include <limits>

#include "kernels/memory_simd.hpp"
#include "kernels/vector.hpp"

namespace sinew {
namespace {

// Of W rows: K held numbers of each, largest first, and their columns.
template <int K>
struct Held {
  Vf value[K];
  Vi column[K];

  Held() {
    for (int i = 0; i < K; ++i) value[i] = splat(std::numeric_limits<float>::quiet_NaN());  // a free place
  }
  // A number of each row goes before the first that it exceeds, or to the first free place.
  [[gnu::always_inline]] void add(Vf x, std::int32_t at) {
    const Vf v = x == x ? x : splat(-std::numeric_limits<float>::infinity());  // NaN counts as least
    const Vi c = at + Vi{};
    Vi stays = v <= value[K - 1];
#pragma GCC unroll 8
    for (int i = K - 1; i > 0; --i) {
      const Vi before = v <= value[i - 1];  // what stands before i stays as well
      value[i] = stays ? value[i] : before ? v : value[i - 1];
      column[i] = stays ? column[i] : before ? c : column[i - 1];
      stays = before;
    }
    value[0] = stays ? value[0] : v;
    column[0] = stays ? column[0] : c;
  }
};

template <int K>
void choose_lanes(const float* x, index_t ld, index_t n, index_t rows, std::int64_t* out) {
  Held<K> held;
  const float* row[W];
  for (index_t r = 0; r < W; ++r) row[r] = x + std::min(r, rows - 1) * ld;
  for (index_t j = 0; j < n; j += W) {
    Vu v[W];
    for (int r = 0; r < W; ++r) v[r] = (Vu)load_n(row[r] + j, n - j);
    transpose(v);
    for (index_t i = 0; i < std::min<index_t>(W, n - j); ++i)
      held.add((Vf)v[i], static_cast<std::int32_t>(j + i));
  }
  for (int k = 0; k < K; ++k) {
    std::int32_t column[W];
    std::memcpy(column, &held.column[k], sizeof column);
    for (index_t r = 0; r < rows; ++r) out[r * K + k] = column[r];
  }
}

template <int K>
[[gnu::always_inline]] inline void choose_with(const float* x, index_t ld, index_t n, index_t rows,
                                               index_t count, std::int64_t* out) {
  if (count == K)
    for (index_t r = 0; r < rows; r += W)
      choose_lanes<K>(x + r * ld, ld, n, std::min<index_t>(W, rows - r), out + r * K);
  else if constexpr (K > 1)
    choose_with<K - 1>(x, ld, n, rows, count, out);
}
[[maybe_unused]] void choose(const float* x, index_t ld, index_t n, index_t rows, index_t count,
                             std::int64_t* out) {
  choose_with<kMostChosen>(x, ld, n, rows, count, out);
}

}  // namespace
}  // namespace sinew
