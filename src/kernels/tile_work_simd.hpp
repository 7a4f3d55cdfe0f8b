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

template <class T, class Out>
[[gnu::always_inline]] inline Out* out_of(const TileWork<T>& work) {
  if constexpr (std::is_same_v<T, Out>)
    return work.kind == TileWork<T>::Kind::rows ? work.out : reinterpret_cast<Out*>(work.sums);
  else
    return work.sums;
}

// Any part of a tile.
template <class T, class Out>
void work_rows(const TileWork<T>& work, index_t from, index_t to) {
  Out* const out = out_of<T, Out>(work);
  for (index_t r = from; r < to; ++r)
    store_tile(work.tile + r * work.ld_tile, work.ld_tile, 1, work.columns,
               out + (work.index != nullptr ? work.index[r] : r) * work.ld, work.ld,
               work.weight != nullptr ? work.weight[r] : 1.0F, work.accumulate);
}
// All 32 columns past the caches.
template <class T, class Out, bool Indexed, bool Weighted>
void work_whole_rows(const TileWork<T>& work, index_t from, index_t to) {
  Out* const out = out_of<T, Out>(work);
  for (index_t r = from; r < to; ++r) {
    const float* const in = work.tile + r * work.ld_tile;
    Out* const row = out + (Indexed ? work.index[r] : r) * work.ld;
    for (index_t i = 0; i < kTile; i += W)
      store_past_caches(row + i, Weighted ? load(in + i) * work.weight[r] : load(in + i));
  }
}
template <class T, class Out>
TileRows<T> rows_of(const TileWork<T>& work) {
  const bool past =
      work.past && !work.accumulate && work.columns == kTile && whole_lines(out_of<T, Out>(work), work.ld);
  if (!past) return work_rows<T, Out>;
  if (work.index != nullptr)
    return work.weight != nullptr ? work_whole_rows<T, Out, true, true>
                                  : work_whole_rows<T, Out, true, false>;
  return work.weight != nullptr ? work_whole_rows<T, Out, false, true>
                                : work_whole_rows<T, Out, false, false>;
}

template <class T>
[[gnu::always_inline]] inline Vf sigmoid_for(Vf x) {
  if constexpr (std::is_same_v<T, bf16>) return rough_sigmoid(x);
  return sigmoid(x);
}

template <class T, bool Past>
void work_swiglu(const TileWork<T>& work, index_t from, index_t to) {
  for (index_t r = from; r < to; ++r)
    for (index_t i = 0; i < kTile; i += W) {
      const index_t at = r * kTile + i;
      const Vf g = load(work.tile + at), u = load(work.up_tile + at);
      if (Past) {
        store_past_caches(work.gate + at, g);
        store_past_caches(work.up + at, u);
      } else {
        store(work.gate + at, g);
        store(work.up + at, u);
      }
      store(work.act + r * work.ld_act + i, g * sigmoid_for<T>(g) * u);
    }
}

template <class T>
void work_swiglu_backward(const TileWork<T>& work, index_t from, index_t to) {
  for (index_t r = from; r < to; ++r) {
    const float w = work.weight != nullptr ? work.weight[r] : 1.0F;
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
void no_work(const TileWork<T>&, index_t, index_t) {}

template <class T>
TileRows<T> work_of(const TileWork<T>& work) {
  using Kind = typename TileWork<T>::Kind;
  switch (work.kind) {
    case Kind::rows:
      return rows_of<T, T>(work);
    case Kind::sums:
      return rows_of<T, float>(work);
    case Kind::swiglu:
      return work.past && whole_lines(work.gate, kTile) && whole_lines(work.up, kTile)
                 ? work_swiglu<T, true>
                 : work_swiglu<T, false>;
    case Kind::swiglu_backward:
      return work_swiglu_backward<T>;
    case Kind::none:
      break;
  }
  return no_work<T>;
}

}  // namespace
}  // namespace sinew
