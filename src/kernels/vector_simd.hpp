// The functions of vector.hpp on vectors of SINEW_WIDTH floats. See simd.hpp for how to include it.
#pragma once

#include "kernels/simd.hpp"
#include "kernels/vector.hpp"

namespace sinew {
namespace {

// body(i, whole vector) over [0, n): whole vectors, then the tail through a padded copy where `body` is told
// how many lanes count. Loads and stores of the tail go through load_n and store_n.
template <class T>
[[gnu::always_inline]] inline Vf load_n(const T* p, index_t n) {
  if (n >= W) return load(p);
  T lanes[W] = {};
  for (index_t i = 0; i < n; ++i) lanes[i] = p[i];
  return load(lanes);
}
template <class T>
[[gnu::always_inline]] inline void store_n(T* p, Vf v, index_t n) {
  if (n >= W) return store(p, v);
  T lanes[W];
  store(lanes, v);
  for (index_t i = 0; i < n; ++i) p[i] = lanes[i];
}

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
void scatter(const float* tile, index_t rows, index_t columns, const std::int32_t* index, const float* weight,
             T* out, index_t ld) {
  for (index_t r = 0; r < rows; ++r)
    store_tile(tile + r * kTile, kTile, 1, columns, out + index[r] * ld, ld,
               weight != nullptr ? weight[r] : 1.0F, false);
}

template <class T>
void sum_rows(const T* rows, index_t ld, index_t count, const T* addend, index_t n, T* out) {
  for (index_t i = 0; i < n; i += W) {
    for (index_t r = 0; r < count; ++r)
      __builtin_prefetch(rows + (r + count) * ld + i, 0, 2);  // the next call's
    Vf s = addend != nullptr ? load_n(addend + i, n - i) : Vf{};
    for (index_t r = 0; r < count; ++r) s += load_n(rows + r * ld + i, n - i);
    store_n(out + i, s, n - i);
  }
}

template <class T>
void widen(const T* in, index_t n, float* out) {
  for (index_t i = 0; i < n; i += W) store_n(out + i, load_n(in + i, n - i), n - i);
}

template <class T>
void swiglu_forward(const float* gate, const float* up, index_t rows, index_t columns, T* gate_out, T* up_out,
                    index_t ld_h, T* act, index_t ld_act) {
  for (index_t r = 0; r < rows; ++r)
    for (index_t i = 0; i < columns; i += W) {
      const index_t left = columns - i;
      const Vf g = load(gate + r * kTile + i), u = load(up + r * kTile + i);
      store_n(gate_out + r * ld_h + i, g, left);
      store_n(up_out + r * ld_h + i, u, left);
      store_n(act + r * ld_act + i, g * sigmoid(g) * u, left);
    }
}

template <class T>
void swiglu_backward(const float* d_act, index_t rows, index_t columns, const T* gate, const T* up,
                     index_t ld_h, const float* weight, float* dot, T* d_gate, T* d_up, index_t ld_d,
                     T* weighted_act, index_t ld_act) {
  for (index_t r = 0; r < rows; ++r) {
    const float w = weight != nullptr ? weight[r] : 1.0F;
    Vf total = {};
    for (index_t i = 0; i < columns; i += W) {
      const index_t left = columns - i;
      const Vf g = load_n(gate + r * ld_h + i, left), u = load_n(up + r * ld_h + i, left);
      const Vf d = load_n(d_act + r * kTile + i, left);
      const Vf s = sigmoid(g), silu = g * s, act = silu * u;
      total += d * act;
      const Vf dw = d * w;
      store_n(d_up + r * ld_d + i, dw * silu, left);
      store_n(d_gate + r * ld_d + i, dw * u * (s + silu * (1.0F - s)), left);
      store_n(weighted_act + r * ld_act + i, act * w, left);
    }
    if (dot != nullptr) dot[r] += sum(total);
  }
}

template <class T>
constexpr VectorKernels<T> vector_table() {
  return {store_tile<T>, scatter<T>, sum_rows<T>, widen<T>, swiglu_forward<T>, swiglu_backward<T>};
}

}  // namespace
}  // namespace sinew
