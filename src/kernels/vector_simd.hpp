// The functions of vector.hpp on vectors of SINEW_WIDTH floats. See simd.hpp for how to include it.
#pragma once

#include "kernels/choice_simd.hpp"
#include "kernels/memory_simd.hpp"
#include "kernels/optimizer_simd.hpp"
#include "kernels/tile_work_simd.hpp"

namespace sinew {
namespace {

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
void sum_terms(const T* const* terms, index_t count, index_t n, T* out) {
  for (index_t i = 0; i < n; i += W) {
    Vf s = load_n(terms[0] + i, n - i);
    for (index_t t = 1; t < count; ++t) s += load_n(terms[t] + i, n - i);
    store_n(out + i, s, n - i);
  }
}

template <class T>
void widen(const T* in, index_t n, float* out) {
  for (index_t i = 0; i < n; i += W) store_n(out + i, load_n(in + i, n - i), n - i);
}

inline float load_one(const float* p) { return *p; }
inline float load_one(const bf16* p) { return to_float(*p); }

// Lanes 2i and 2i+1 hold x[i]; each lane holds its neighbour in the pair; lanes -x, x, -x, ..
template <int... I>
[[gnu::always_inline]] inline Vf twice_of(const float* x, std::integer_sequence<int, I...>) {
  typedef float Half __attribute__((vector_size(W * 2)));
  const Half h = load_as<Half>(x);
  return __builtin_shufflevector(h, h, (I / 2)...);
}
[[gnu::always_inline]] inline Vf twice(const float* x) {
  return twice_of(x, std::make_integer_sequence<int, W>{});
}
template <int... I>
[[gnu::always_inline]] inline Vf swap_pairs(Vf v, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(v, v, (I ^ 1)...);
}
[[gnu::always_inline]] inline Vf other_of_pair(Vf v) {
  return swap_pairs(v, std::make_integer_sequence<int, W>{});
}
[[gnu::always_inline]] inline Vf alternating(float x) {
  Vf v;
  for (int l = 0; l < W; ++l) v[l] = l % 2 == 0 ? -x : x;
  return v;
}

template <class In, class T>
[[gnu::always_inline]] inline void rotate_any(const In* x, index_t half, const float* cos, const float* sin,
                                              float sign, bool interleaved, T* out) {
  const index_t step = interleaved ? 2 : 1, other = interleaved ? 1 : half;
  index_t j = 0;
  for (; interleaved && j + W / 2 <= half; j += W / 2) {
    const Vf v = load(x + 2 * j);
    store(out + 2 * j, v * twice(cos + j) + other_of_pair(v) * twice(sin + j) * alternating(sign));
  }
  for (; j < half; ++j) {
    const float a = load_one(x + j * step), b = load_one(x + j * step + other), s = sign * sin[j];
    store_one(out + j * step, a * cos[j] - b * s);
    store_one(out + j * step + other, a * s + b * cos[j]);
  }
}
template <class T>
void rotate(const T* x, index_t half, const float* cos, const float* sin, float sign, bool interleaved,
            T* out) {
  rotate_any(x, half, cos, sin, sign, interleaved, out);
}
template <class T>
void rotate_back(const float* x, index_t half, const float* cos, const float* sin, bool interleaved, T* out) {
  rotate_any(x, half, cos, sin, -1.0F, interleaved, out);
}

// Lanes i .. i+W-1 that are keys the query sees.
[[gnu::always_inline]] inline Vi seen(index_t i, index_t first, index_t end, const std::int32_t* documents,
                                      std::int32_t document) {
  Vi lane;
  for (int l = 0; l < W; ++l) lane[l] = l;
  lane += static_cast<std::int32_t>(i);
  Vi mask = (lane >= static_cast<std::int32_t>(first)) & (lane < static_cast<std::int32_t>(end));
  if (documents != nullptr) {
    Vi own = {};
    const index_t n = end - i < W ? end - i : W;
    if (n > 0) __builtin_memcpy(&own, documents + i, static_cast<std::size_t>(n) * 4);
    mask &= own == document;
  }
  return mask;
}
[[gnu::always_inline]] inline bool all_seen(index_t i, index_t first, index_t end,
                                            const std::int32_t* documents) {
  return documents == nullptr && i >= first && i + W <= end;
}

constexpr float kLog2E = 1.44269504088896341F;

// `scale` is positive.
template <class T>
float softmax_row(const float* s, index_t first, index_t end, index_t padded, float scale,
                  const std::int32_t* documents, std::int32_t document, T* p, float* top_out) {
  const Vf low = splat(-3.0e38F);
  Vf m = low;
  const index_t start = first / W * W;
  for (index_t i = start; i < end; i += W) {
    Vf x = load(s + i);
    if (!all_seen(i, first, end, documents)) x = select(seen(i, first, end, documents, document), x, low);
    m = maximum(m, x);
  }
  const float top = largest(m) * scale, factor = scale * kLog2E, shift = top * kLog2E;
  Vf total = {};
  for (index_t i = 0; i < start; i += W) store(p + i, Vf{});
  for (index_t i = start; i < end; i += W) {
    Vf e = power_of_two(load(s + i) * factor - shift);
    if (!all_seen(i, first, end, documents)) e = select(seen(i, first, end, documents, document), e, Vf{});
    total += e;
    store(p + i, e);
  }
  for (index_t i = end < start ? start : (end + W - 1) / W * W; i < padded; i += W) store(p + i, Vf{});
  *top_out = top;
  return sum(total);
}

template <class T>
void softmax_backward(const float* s, const float* dp, index_t ld, const WeightRow (&rows)[2], index_t padded,
                      float scale, const std::int32_t* documents, T* ds, T* p_panels, T* ds_panels,
                      index_t panel) {
  const float factor = scale * kLog2E;
  for (index_t i = 0; i < padded; i += W) {
    Vf e[2] = {}, d[2] = {};
    for (int r = 0; r < 2; ++r) {
      const WeightRow& row = rows[r];
      if (i < row.end) {
        const index_t at = r * ld + i;
        e[r] = power_of_two(load(s + at) * factor - row.lse * kLog2E);
        d[r] = e[r] * (load(dp + at) - row.delta) * scale;
        if (!all_seen(i, 0, row.end, documents)) {
          const Vi mask = seen(i, 0, row.end, documents, row.document);
          e[r] = select(mask, e[r], Vf{});
          d[r] = select(mask, d[r], Vf{});
        }
      }
      store(ds + r * ld + i, d[r]);
    }
    const index_t at = i / kTile * panel, column = i % kTile;
    store_row_pair(p_panels + at, kTile, column, e[0], e[1]);
    store_row_pair(ds_panels + at, kTile, column, d[0], d[1]);
  }
}

template <class T>
float dot(const T* a, const T* b, index_t n) {
  Vf total = {};
  for (index_t i = 0; i < n; i += W) total += load_n(a + i, n - i) * load_n(b + i, n - i);
  return sum(total);
}

template <class T>
float norm_row(const T* x, const T* addend, const T* weight, index_t n, float eps, T* sum_out, T* y) {
  Vf squares = {};
  for (index_t i = 0; i < n; i += W) {
    Vf v = load_n(x + i, n - i);
    if (addend != nullptr) {
      store_n(sum_out + i, v + load_n(addend + i, n - i), n - i);
      v = load_n(sum_out + i, n - i);  // the rounded sum is what the next layers see
    }
    squares += v * v;
  }
  const float inverse = 1.0F / __builtin_sqrtf(sum(squares) / static_cast<float>(n) + eps);
  const T* const from = addend != nullptr ? sum_out : x;
  for (index_t i = 0; i < n; i += W)
    store_n(y + i, load_n(from + i, n - i) * inverse * load_n(weight + i, n - i), n - i);
  return inverse;
}

template <class T>
void norm_row_backward(const T* x, const T* dy, const T* d_sum, const T* weight, float inverse, index_t n,
                       T* dx, float* d_weight) {
  Vf dots = {};
  for (index_t i = 0; i < n; i += W) {
    const Vf g = load_n(dy + i, n - i), v = load_n(x + i, n - i);
    dots += g * load_n(weight + i, n - i) * v;
    store_n(d_weight + i, load_n(d_weight + i, n - i) + g * v * inverse, n - i);
  }
  const float pull = sum(dots) * inverse * inverse * inverse / static_cast<float>(n);
  for (index_t i = 0; i < n; i += W) {
    Vf d = load_n(dy + i, n - i) * load_n(weight + i, n - i) * inverse - load_n(x + i, n - i) * pull;
    if (d_sum != nullptr) d += load_n(d_sum + i, n - i);
    store_n(dx + i, d, n - i);
  }
}

// e^x of x <= 0 for results that are kept as T.
template <class T>
[[gnu::always_inline]] inline Vf exponential_for(Vf x) {
  if constexpr (std::is_same_v<T, bf16>) return power_of_two(x * kLog2E);
  return exponential(x);
}

template <class T>
float cross_entropy_row(float* logits, index_t n, index_t target, T* d) {
  Vf m = splat(-3.0e38F);
  const index_t whole = n / W * W;
  for (index_t i = 0; i < whole; i += W) m = maximum(m, load(logits + i));
  float top = largest(m);
  for (index_t i = whole; i < n; ++i) top = logits[i] > top ? logits[i] : top;
  const float hit_logit = logits[target];
  Vf total = {};
  for (index_t i = 0; i < whole; i += W) {
    const Vf e = exponential_for<T>(load(logits + i) - top);
    total += e;
    store(logits + i, e);  // they are in the cache, and an exponential costs more than to read it again
  }
  float all = sum(total);
  if (whole < n) {
    Vf rest = load_n(logits + whole, n - whole) - top;
    Vi lane;
    for (int l = 0; l < W; ++l) lane[l] = l;
    rest = exponential_for<T>(select(lane < static_cast<std::int32_t>(n - whole), rest, splat(-100.0F)));
    store_n(logits + whole, rest, n - whole);
    all += sum(rest);
  }
  const float loss = __builtin_logf(all) + top - hit_logit;
  if (d == nullptr) return loss;
  const float inverse = 1.0F / all, hit = logits[target] * inverse;
  index_t i = 0;
  for (; i + 2 * W <= n; i += 2 * W) {
    const Vf a = load(logits + i) * inverse, b = load(logits + i + W) * inverse;
    store(d + i, a, b);  // where d begins with the logits it stays behind what is read
  }
  for (; i < n; i += W) store_n(d + i, load_n(logits + i, n - i) * inverse, n - i);
  store_one(d + target, hit - 1.0F);
  return loss;
}

[[maybe_unused]] void gate_scores(const float* logits, index_t n, bool softmax, float* scores) {
  if (!softmax) {
    for (index_t i = 0; i < n; i += W) store_n(scores + i, sigmoid(load_n(logits + i, n - i)), n - i);
    return;
  }
  const index_t whole = n / W * W;
  Vf m = splat(-3.0e38F), total = {};
  for (index_t i = 0; i < whole; i += W) m = maximum(m, load(logits + i));
  float top = largest(m);
  for (index_t i = whole; i < n; ++i) top = logits[i] > top ? logits[i] : top;
  for (index_t i = 0; i < whole; i += W) {
    const Vf e = exponential(load(logits + i) - top);
    total += e;
    store(scores + i, e);
  }
  float all = sum(total);
  if (whole < n) store_n(scores + whole, exponential(load_n(logits + whole, n - whole) - top), n - whole);
  for (index_t i = whole; i < n; ++i) all += scores[i];
  for (index_t i = 0; i < n; i += W) store_n(scores + i, load_n(scores + i, n - i) / all, n - i);
}

[[maybe_unused]] void gate_scores_backward(const float* scores, index_t n, bool softmax, float* d) {
  Vf products = {};
  for (index_t i = 0; i < n && softmax; i += W) products += load_n(scores + i, n - i) * load_n(d + i, n - i);
  const float pull = sum(products);
  for (index_t i = 0; i < n; i += W) {
    const Vf s = load_n(scores + i, n - i), g = load_n(d + i, n - i);
    store_n(d + i, softmax ? s * (g - pull) : g * s * (1.0F - s), n - i);
  }
}

template <class T>
constexpr VectorKernels<T> vector_table() {
  return {store_tile<T>,
          work_of<T>,
          sum_rows<T>,
          sum_terms<T>,
          widen<T>,
          rotate<T>,
          rotate_back<T>,
          softmax_row<T>,
          softmax_backward<T>,
          dot<T>,
          norm_row<T>,
          norm_row_backward<T>,
          cross_entropy_row<T>,
          adamw<T>,
          sum_of_squares,
          gate_scores,
          gate_scores_backward,
          choose};
}

}  // namespace
}  // namespace sinew
