// What tile_work.hpp describes, on vectors of SINEW_WIDTH floats. See simd.hpp for how to include it.
#pragma once

#include "kernels/memory_simd.hpp"
#include "kernels/tile_work.hpp"
#include "kernels/vector.hpp"

namespace sinew {
namespace {

template <class T>
void store_tile(const float* in, index_t ld_in, index_t rows, index_t columns, T* out, index_t ld_out,
                float scale, bool accumulate) {
  if (columns == kTile && !accumulate) {  // what nearly every block is
    for (index_t r = 0; r < rows; ++r)
      for (index_t i = 0; i < kTile; i += 2 * W)
        store(out + r * ld_out + i, load(in + r * ld_in + i) * scale, load(in + r * ld_in + i + W) * scale);
    return;
  }
  for (index_t r = 0; r < rows; ++r) {
    const float* const x = in + r * ld_in;
    T* const y = out + r * ld_out;
    for (index_t i = 0; i < columns; i += W) {
      Vf v = load_n(x + i, columns - i) * scale;
      if (accumulate) v += load_n(y + i, columns - i);
      store_n(y + i, v, columns - i);
    }
  }
}

template <class T>
[[gnu::always_inline]] inline float weight_of(const TileWork<T>& work, index_t r) {
  return work.weight != nullptr ? work.weight[r] : 1.0F;
}
template <class T>
[[gnu::always_inline]] inline index_t place_of(const TileWork<T>& work, index_t r) {
  return (work.index != nullptr ? work.index[r] : r) * work.ld;
}

// Any part of a tile. `Out`: out or sums.
template <class T, auto Out>
void work_rows(const TileWork<T>& work, index_t from, index_t to) {
  auto* const out = work.*Out;
  for (index_t r = from; r < to; ++r)
    store_tile(work.tile + r * work.ld_tile, work.ld_tile, 1, work.columns, out + place_of(work, r), work.ld,
               weight_of(work, r), work.accumulate);
}
// All 32 columns past the caches.
template <class T, auto Out>
void work_whole_rows(const TileWork<T>& work, index_t from, index_t to) {
  auto* const out = work.*Out;
  for (index_t r = from; r < to; ++r) {
    const float* const in = work.tile + r * work.ld_tile;
    auto* const row = out + place_of(work, r);
    const float w = weight_of(work, r);
    for (index_t i = 0; i < kTile; i += 2 * W)
      store_past_caches(row + i, load(in + i) * w, load(in + i + W) * w);
  }
}
template <class T, auto Out>
TileRows<T> rows_of(const TileWork<T>& work) {
  const bool past = work.past && !work.accumulate && work.columns == kTile && whole_lines(work.*Out, work.ld);
  return past ? work_whole_rows<T, Out> : work_rows<T, Out>;
}

template <class T>
[[gnu::always_inline]] inline Vf sigmoid_for(Vf x) {
  if constexpr (std::is_same_v<T, bf16>) return rough_sigmoid(x);
  return sigmoid(x);
}

template <class T, bool Past>
void work_swiglu(const TileWork<T>& work, index_t from, index_t to) {
  for (index_t r = from; r < to; ++r)
    for (index_t i = 0; i < kTile; i += 2 * W) {
      const index_t at = r * kTile + i;
      const Vf g0 = load(work.tile + at), g1 = load(work.tile + at + W);
      const Vf u0 = load(work.up_tile + at), u1 = load(work.up_tile + at + W);
      if (Past) {
        store_past_caches(work.gate + at, g0, g1);
        store_past_caches(work.up + at, u0, u1);
      } else {
        store(work.gate + at, g0, g1);
        store(work.up + at, u0, u1);
      }
      store(work.act + r * work.ld_act + i, g0 * sigmoid_for<T>(g0) * u0, g1 * sigmoid_for<T>(g1) * u1);
    }
}

template <class T>
void work_swiglu_backward(const TileWork<T>& work, index_t from, index_t to) {
  for (index_t r = from; r < to; ++r) {
    const float w = weight_of(work, r);
    Vf total = {};
    for (index_t i = 0; i < kTile; i += W) {
      const index_t at = r * kTile + i;
      const Vf g = load(work.gate + at), u = load(work.up + at), d = load(work.tile + at);
      const Vf s = sigmoid_for<T>(g), silu = g * s, act = silu * u;
      total += d * act;
      const Vf dw = d * w;
      store(work.d_up + r * work.ld_d + i, dw * silu);
      store(work.d_gate + r * work.ld_d + i, dw * u * (s + silu * (1.0F - s)));
      store(work.act + r * work.ld_act + i, act * w);
    }
    work.dot[r] += sum(total);
  }
}

template <class T>
TileRows<T> work_of(const TileWork<T>& work) {
  using Kind = typename TileWork<T>::Kind;
  switch (work.kind) {
    case Kind::rows:
      return rows_of<T, &TileWork<T>::out>(work);
    case Kind::sums:
      return rows_of<T, &TileWork<T>::sums>(work);
    case Kind::swiglu:
      return work.past && whole_lines(work.gate, kTile) && whole_lines(work.up, kTile)
                 ? work_swiglu<T, true>
                 : work_swiglu<T, false>;
    case Kind::swiglu_backward:
      break;
  }
  return work_swiglu_backward<T>;
}

}  // namespace
}  // namespace sinew
