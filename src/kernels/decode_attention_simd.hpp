// The kernels of decode_attention.hpp in fp32, on vectors of SINEW_WIDTH floats. See simd.hpp for how to
// include it. Scores lie key by key, [keys, rows], so that the softmax of all rows is vectors all the way.
#pragma once

#include "kernels/decode_attention.hpp"
#include "kernels/simd.hpp"
#include "kernels/widen.hpp"
#include "kernels/workspace.hpp"

namespace sinew {
namespace {

constexpr float kLeast = -3.0e38F;  // no score is less
constexpr float kLog2OfE = 1.44269504088896341F;

inline std::size_t count(index_t n) { return static_cast<std::size_t>(n); }

// ---- the softmax of [keys, rows] ----

// Scores of keys from visible[row] on become kLeast; rows in [rows, ld) are nobody's.
[[maybe_unused]] inline void hide(const index_t* visible, index_t rows, index_t first, index_t keys,
                                  float* scores, index_t ld) {
  for (index_t r = 0; r < rows; ++r)
    for (index_t k = visible[r] > first ? visible[r] - first : 0; k < keys; ++k) scores[k * ld + r] = kLeast;
}

// Scores of a block of keys become weights; `top` and `sum` go on, `keep` is what was there before is
// multiplied by. Of W rows. between() once for every eight keys, a multiple of which there are.
template <class Between>
[[gnu::always_inline]] inline void softmax_rows(float* scores, index_t ld, index_t keys, float* top,
                                                float* sum, float* keep, const Between& between) {
  const Vf old = load(top);
  Vf most = old;
  for (index_t k = 0; k < keys; ++k) most = maximum(most, load(scores + k * ld));
  const Vf factor = power_of_two(old - most);
  Vf total = load(sum) * factor;
  for (index_t k = 0; k < keys; k += 8) {
    between();
#pragma GCC unroll 4
    for (index_t i = k; i < k + 8; ++i) {
      const Vf s = load(scores + i * ld);
      const Vf p = select(s > splat(kLeast), power_of_two(s - most), Vf{});
      total += p;
      store(scores + i * ld, p);
    }
  }
  store(top, most);
  store(sum, total);
  store(keep, factor);
}

// ---- pages as floats ----

struct FloatRows {
  const float* at;
  index_t ld;
};

inline FloatRows float_rows(BlockFormat format, const std::byte* rows, std::size_t bytes, index_t n,
                            float* scratch) {
  if (format == BlockFormat::f32)
    return {reinterpret_cast<const float*>(rows), static_cast<index_t>(bytes / sizeof(float))};
  const index_t block = static_cast<index_t>(block_info(format).elements), ld = round_up(n, block);
  for (index_t r = 0; r < kCachePage; ++r)
    widen(format, rows + count(r) * bytes, count(ld), scratch + r * ld);
  return {scratch, ld};
}

// ---- products ----

// Scores of R keys with V vectors of rows: q [key, ld_q] holds the rows side by side.
template <int R, int V>
[[gnu::always_inline]] inline void score_keys(FloatRows keys, index_t first, const float* q, index_t ld_q,
                                              index_t n, float* scores, index_t ld) {
  Vf s[R][V] = {};
  for (index_t i = 0; i < n; ++i) {
    Vf x[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) x[v] = load(q + i * ld_q + v * W);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const Vf k = splat(keys.at[(first + r) * keys.ld + i]);
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) s[r][v] += k * x[v];
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) store(scores + (first + r) * ld + v * W, s[r][v]);
}

template <int V>
void score_page(FloatRows keys, const float* q, index_t ld_q, index_t n, float* scores, index_t ld) {
  constexpr int R = (W == 16 ? 16 : 8) / V;
  for (index_t k = 0; k < kCachePage; k += R) score_keys<R, V>(keys, k, q, ld_q, n, scores, ld);
}

// The same where there are so few rows that most lanes would idle: q [rows, ld_q], lanes along the key.
inline void score_few(FloatRows keys, index_t rows, const float* q, index_t ld_q, index_t n, float* scores,
                      index_t ld) {
  const index_t whole = n / W * W;
  for (index_t k = 0; k < kCachePage; ++k) {
    const float* const key = keys.at + k * keys.ld;
    for (index_t r = 0; r < rows; ++r) {
      const float* const x = q + r * ld_q;
      Vf a = {}, b = {};
      index_t i = 0;
      for (; i + 2 * W <= whole; i += 2 * W) {
        a += load(key + i) * load(x + i);
        b += load(key + i + W) * load(x + i + W);
      }
      for (; i < whole; i += W) a += load(key + i) * load(x + i);
      float total = ::sinew::sum(a + b);
      for (; i < n; ++i) total += key[i] * x[i];
      scores[k * ld + r] = total;
    }
  }
}

// out [R, ld_out] = keep[r] * out + the sum over the page's keys of weights[k, r] * values, C vectors of
// columns.
template <int R, int C>
[[gnu::always_inline]] inline void weigh_columns(const float* weights, index_t ld, const float* keep,
                                                 const float* values, index_t ld_v, float* out,
                                                 index_t ld_out) {
  Vf s[R][C];
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) s[r][c] = load(out + r * ld_out + c * W) * keep[r];
  for (index_t k = 0; k < kCachePage; ++k) {
    Vf v[C];
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) v[c] = load(values + k * ld_v + c * W);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      const Vf p = splat(weights[k * ld + r]);
#pragma GCC unroll 4
      for (int c = 0; c < C; ++c) s[r][c] += p * v[c];
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) store(out + r * ld_out + c * W, s[r][c]);
}

template <int R>
void weigh_page(const float* weights, index_t ld, const float* keep, FloatRows values, index_t n, float* out,
                index_t ld_out) {
  constexpr int C = W == 16 ? 4 : 2;
  index_t c = 0;
  for (; c + C * W <= n; c += C * W)
    weigh_columns<R, C>(weights, ld, keep, values.at + c, values.ld, out + c, ld_out);
  for (; c + W <= n; c += W)
    weigh_columns<R, 1>(weights, ld, keep, values.at + c, values.ld, out + c, ld_out);
  for (; c < n; ++c)
    for (int r = 0; r < R; ++r) {
      float s = out[r * ld_out + c] * keep[r];
      for (index_t k = 0; k < kCachePage; ++k) s += weights[k * ld + r] * values.at[k * values.ld + c];
      out[r * ld_out + c] = s;
    }
}

// ---- the whole ----

struct FloatQueries {
  bool few;
  index_t wide;    // rows, to whole vectors
  const float* q;  // few: [rows, key]; else [key, wide]

  FloatQueries(index_t rows, const void* prepared)
      : few(rows <= W / 4), wide(round_up(rows, W)), q(static_cast<const float*>(prepared)) {}
};

[[maybe_unused]] std::size_t float_query_bytes(const CacheRows& cache, index_t rows) {
  return count(cache.key * round_up(rows, W)) * sizeof(float);
}
[[maybe_unused]] void prepare_floats(const CacheRows& cache, float scale, index_t rows, const float* const* q,
                                     void* out) {
  const FloatQueries queries(rows, out);
  auto* const to = static_cast<float*>(out);
  const float factor = scale * kLog2OfE;
  if (!queries.few) std::memset(to, 0, float_query_bytes(cache, rows));
  for (index_t r = 0; r < rows; ++r)
    for (index_t i = 0; i < cache.key; ++i)
      to[queries.few ? r * cache.key + i : i * queries.wide + r] = q[r][i] * factor;
}

inline void score_all(const CacheRows& cache, const FloatQueries& queries, index_t rows, FloatRows keys,
                      float* scores) {
  if (queries.few) return score_few(keys, rows, queries.q, cache.key, cache.key, scores, queries.wide);
  constexpr int V = W == 16 ? 1 : 2;
  index_t r = 0;
  for (; r + V * W <= queries.wide; r += V * W)
    score_page<V>(keys, queries.q + r, queries.wide, cache.key, scores + r, queries.wide);
  for (; r < queries.wide; r += W)
    score_page<1>(keys, queries.q + r, queries.wide, cache.key, scores + r, queries.wide);
}

inline void weigh_all(const CacheRows& cache, index_t rows, const float* weights, index_t ld,
                      const float* keep, FloatRows values, float* out) {
  const index_t n = cache.value, wide = decode_columns(n);
  index_t r = 0;
  for (; r + 4 <= rows; r += 4) weigh_page<4>(weights + r, ld, keep + r, values, n, out + r * wide, wide);
  for (; r + 2 <= rows; r += 2) weigh_page<2>(weights + r, ld, keep + r, values, n, out + r * wide, wide);
  for (; r < rows; ++r) weigh_page<1>(weights + r, ld, keep + r, values, n, out + r * wide, wide);
}

[[maybe_unused]] void attend_float(const CacheRows& cache, const DecodePiece& piece, const DecodePiece*) {
  Workspace::Frame frame(thread_workspace());
  const FloatQueries queries(piece.rows, piece.q);
  const index_t wide = queries.wide;
  float* const scores = frame.take<float>(count(kCachePage * wide));
  float* const state = frame.take<float>(count(3 * wide));
  float *const top = state, *const sum = state + wide, *const keep = state + 2 * wide;
  const index_t widest = round_up(cache.key > cache.value ? cache.key : cache.value, 32);
  float* const key_scratch = frame.take<float>(count(kCachePage * widest));
  float* const value_scratch = cache.latent ? nullptr : frame.take<float>(count(kCachePage * widest));
  for (index_t r = 0; r < wide; ++r) top[r] = kLeast, sum[r] = 0;
  std::memset(scores, 0, count(kCachePage * wide) * sizeof(float));
  std::memset(piece.out, 0, count(piece.rows * decode_columns(cache.value)) * sizeof(float));
  for (index_t first = 0; first < piece.keys; first += kCachePage) {
    const CachePage& page = piece.pages[first / kCachePage];
    const FloatRows keys = float_rows(cache.format, page.keys, cache.key_bytes, cache.key, key_scratch);
    score_all(cache, queries, piece.rows, keys, scores);
    hide(piece.visible, piece.rows, first, kCachePage, scores, wide);
    for (index_t r = 0; r < wide; r += W)
      softmax_rows(scores + r, wide, kCachePage, top + r, sum + r, keep + r, [] {});
    const FloatRows values =
        cache.latent ? keys
                     : float_rows(cache.format, page.values, cache.value_bytes, cache.value, value_scratch);
    weigh_all(cache, piece.rows, scores, wide, keep, values, piece.out);
  }
  for (index_t r = 0; r < piece.rows; ++r) piece.top[r] = top[r], piece.sum[r] = sum[r];
}

// 32 columns of results as they lie.
struct AsTheyLie {
  static void put(const float* columns, index_t n, float* y) {
    std::memcpy(y, columns, count(n) * sizeof(float));
  }
};

template <class Order>
[[maybe_unused]] void merge_pieces(index_t pieces, const float* top, const float* sum, const float* out,
                                   index_t stride, index_t value, float* y) {
  constexpr index_t kMost = 256;  // at a time: more go on from what there is
  constexpr int V = 32 / W;
  float most = kLeast, total = 0;
  for (index_t i = 0; i < pieces; ++i)
    if (sum[i * stride] > 0) most = top[i * stride] > most ? top[i * stride] : most;
  for (index_t i = 0; i < pieces; ++i)
    if (sum[i * stride] > 0) total += sum[i * stride] * power_of_two(splat(top[i * stride] - most))[0];
  const index_t wide = decode_columns(value);
  float factor[kMost];
  for (index_t c = 0; c < value; c += 32) {
    Vf s[V] = {};
    for (index_t begin = 0; begin < pieces; begin += kMost) {
      const index_t n = pieces - begin < kMost ? pieces - begin : kMost;
      for (index_t i = 0; i < n && (c == 0 || pieces > kMost); ++i) {
        const index_t at = (begin + i) * stride;
        factor[i] = sum[at] > 0 ? power_of_two(splat(top[at] - most))[0] / total : 0.0F;
      }
      const float* const part = out + begin * stride * wide + c;
      for (index_t i = 0; i < n; ++i)
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) s[v] += load(part + i * stride * wide + v * W) * factor[i];
    }
    alignas(64) float columns[32];
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) store(columns + v * W, s[v]);
    Order::put(columns, value - c < 32 ? value - c : 32, y + c);
  }
}

}  // namespace
}  // namespace sinew
