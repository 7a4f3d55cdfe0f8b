#include "kernels/attention.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/index.hpp"
#include "base/threads.hpp"
#include "kernels/vector.hpp"
#include "kernels/workspace.hpp"

namespace sinew {
namespace {

constexpr index_t kQueries = 64;  // rows of a backward block
constexpr index_t kKeys = 256;    // keys of a backward block
constexpr index_t kLine =
    kKeys + kTile;  // their row stride: not a power of two, whose rows would share cache sets

// Few elements: a call of memcpy costs more.
template <class T>
void copy(const T* from, index_t n, T* to) {
  constexpr index_t kWord = 16 / sizeof(T);
  index_t i = 0;
  for (; i + kWord <= n; i += kWord) __builtin_memcpy(static_cast<void*>(to + i), from + i, 16);
  for (; i < n; ++i) to[i] = from[i];
}

template <class T>
T* take_zeros(Workspace::Frame& frame, index_t count) {
  T* const p = frame.take<T>(size(count));
  std::memset(static_cast<void*>(p), 0, size(count) * sizeof(T));
  return p;
}

// What the tasks share.
template <class T>
struct Core {
  const AttentionSizes& s;
  const AttentionInputs<T>& in;
  const GemmKernels<T>& gemm;
  const VectorKernels<T>& vector;
  index_t key_k;    // elements of a head of q and k, padded as k of a product
  index_t value_k;  // elements of a head of v likewise
  index_t tokens;   // T rounded up to whole tiles

  Core(Isa isa, const AttentionSizes& sizes, const AttentionInputs<T>& inputs)
      : s(sizes),
        in(inputs),
        gemm(gemm_kernels<T>(isa)),
        vector(vector_kernels<T>(isa)),
        key_k(padded_k<T>(sizes.key())),
        value_k(padded_k<T>(sizes.value)),
        tokens(round_up(sizes.tokens, kTile)) {}

  index_t group() const { return s.heads / s.kv_heads; }
  index_t key_panels() const { return round_up(s.key(), kTile) / kTile; }
  index_t value_panels() const { return round_up(s.value, kTile) / kTile; }
  const std::int32_t* documents(index_t row) const {
    return s.documents == nullptr ? nullptr : s.documents + row * s.tokens;
  }
  // The first key that any of the `count` queries from t on sees.
  index_t first_key(index_t row, index_t t, index_t count) const {
    if (s.documents == nullptr) return 0;
    const std::int32_t* const d = documents(row);
    index_t first = t;
    for (index_t q = t; q < t + count; ++q)
      first = std::min<index_t>(first, std::find(d, d + first, d[q]) - d);
    return first;
  }
  void rotate(const T* x, index_t t, T* out) const {
    if (s.rotated == 0) return;
    if (s.cos == nullptr) {
      copy(x, s.rotated, out);
      return;
    }
    const index_t half = s.rotated / 2;
    vector.rotate(x, half, s.cos + t * half, s.sin + t * half, 1.0F, s.interleaved, out);
  }
  void rotate_back(const float* x, index_t t, T* out) const {
    if (s.rotated == 0) return;
    if (s.cos == nullptr) return vector.store(x, s.rotated, 1, s.rotated, out, s.rotated, 1.0F, false);
    const index_t half = s.rotated / 2;
    vector.rotate_back(x, half, s.cos + t * half, s.sin + t * half, s.interleaved, out);
  }
  // out [key_k]; what pads it stays as it is.
  void query(index_t row, index_t t, index_t head, T* out) const {
    const T* const q = in.q.at(row * s.tokens + t, head);
    copy(q, s.plain, out);
    rotate(q + s.plain, t, out + s.plain);
  }
  void key(index_t row, index_t t, index_t head, T* out) const {
    const index_t n = row * s.tokens + t;
    if (s.plain > 0) copy(in.k_plain.at(n, head), s.plain, out);
    rotate(in.k_rotated.at(n, head), t, out + s.plain);
  }
};

// Keys and values of one head as the products take them.
template <class T>
struct Packed {
  T* keys = nullptr;               // [tokens, key_k], rotated
  T* keys_transposed = nullptr;    // panels of 32 keys, k = key_k: for scores
  T* values = nullptr;             // panels of 32 value elements, k = tokens: for the output
  T* keys_plain = nullptr;         // panels of 32 key elements, k = tokens: for the gradient of q
  T* values_transposed = nullptr;  // panels of 32 keys, k = value_k: for the gradient of the weights
};

template <class T>
Packed<T> pack(const Core<T>& c, index_t row, index_t head, bool backward, Workspace::Frame& frame) {
  const AttentionSizes& s = c.s;
  const T* const v = c.in.v.at(row * s.tokens, head);
  Packed<T> p;
  p.keys = take_zeros<T>(frame, c.tokens * c.key_k);
  for (index_t t = 0; t < s.tokens; ++t) c.key(row, t, head, p.keys + t * c.key_k);
  p.keys_transposed = frame.take<T>(size(c.tokens * c.key_k));
  for (index_t t = 0; t < c.tokens; t += kTile)
    c.gemm.pack_b_transposed(p.keys + t * c.key_k, c.key_k, kTile, c.key_k, p.keys_transposed + t * c.key_k);
  if (!backward) {
    p.values = take_zeros<T>(frame, c.value_panels() * c.tokens * kTile);
    for (index_t i = 0; i < c.value_panels(); ++i)
      c.gemm.pack_b(v + i * kTile, c.in.v.token, nullptr, s.tokens, std::min(kTile, s.value - i * kTile),
                    p.values + i * c.tokens * kTile);
    return p;
  }
  p.keys_plain = frame.take<T>(size(c.key_panels() * c.tokens * kTile));
  for (index_t i = 0; i < c.key_panels(); ++i)
    c.gemm.pack_b(p.keys + i * kTile, c.key_k, nullptr, c.tokens, std::min(kTile, s.key() - i * kTile),
                  p.keys_plain + i * c.tokens * kTile);
  p.values_transposed = frame.take<T>(size(c.tokens * c.value_k));
  for (index_t t = 0; t < c.tokens; t += kTile)
    c.gemm.pack_b_transposed(v + t * c.in.v.token, c.in.v.token, std::min(kTile, s.tokens - t), s.value,
                             p.values_transposed + t * c.value_k);
  return p;
}

template <class T>
void forward_head(const Core<T>& c, const Packed<T>& p, index_t row, index_t head, const HeadView<T>& out,
                  float* lse) {
  const AttentionSizes& s = c.s;
  Workspace::Frame frame(thread_workspace());
  T* const q = take_zeros<T>(frame, kTile * c.key_k);
  const index_t ld = c.tokens + kTile;  // as kLine
  float* const scores = frame.take<float>(size(kTile * ld));
  T* const weights = take_zeros<T>(frame, kTile * ld);
  const std::int32_t* const documents = c.documents(row);
  const auto scale = static_cast<float>(s.scale);
  for (index_t t0 = 0; t0 < s.tokens; t0 += kTile) {
    const index_t rows = std::min(kTile, s.tokens - t0), end = t0 + kTile;  // keys of whole tiles
    const index_t first = c.first_key(row, t0, rows) / kTile * kTile;
    for (index_t r = 0; r < rows; ++r) c.query(row, t0 + r, head, q + r * c.key_k);
    for (index_t key = first; key < end; key += kTile)
      c.gemm.block(q, c.key_k, rows, p.keys_transposed + key * c.key_k, c.key_k, scores + key, ld, false);
    std::int32_t index[kTile];
    float inverse[kTile], top = 0;
    for (index_t r = 0; r < rows; ++r) {
      const index_t t = t0 + r;
      const float sum =
          c.vector.softmax_row(scores + r * ld + first, 0, t + 1 - first, end - first, scale,
                               documents != nullptr ? documents + first : nullptr,
                               documents != nullptr ? documents[t] : 0, weights + r * ld + first, &top);
      lse[t] = top + std::log(sum);
      inverse[r] = 1 / sum;
      index[r] = static_cast<std::int32_t>(r);
    }
    alignas(64) float tile[kTile * kTile];
    for (index_t i = 0; i < c.value_panels(); ++i) {
      c.gemm.block(weights + first, ld, rows, p.values + i * c.tokens * kTile + first * kTile, end - first,
                   tile, kTile, false);
      c.vector.scatter(tile, rows, std::min(kTile, s.value - i * kTile), index, inverse,
                       out.at(row * s.tokens + t0, head) + i * kTile, out.token, false);
    }
  }
}

// Body(row, kv head) on all threads.
template <class Body>
void each_kv_head(const AttentionSizes& s, const Body& body) {
  parallel_for(size(s.rows * s.kv_heads), 1, [&](std::size_t begin, std::size_t end) {
    for (auto i = static_cast<index_t>(begin); i < static_cast<index_t>(end); ++i)
      body(i / s.kv_heads, i % s.kv_heads);
  });
}

// Sums over all queries, fp32: gradients of the keys (rotated) and values of one head.
struct KeySums {
  float* keys;    // [tokens, key_width]
  float* values;  // [tokens, value_width]
  index_t key_width, value_width;
};

// One block of queries of one head.
template <class T>
struct QueryBlock {
  index_t row, head, t0, rows, padded;  // padded: to whole tiles
  T* q;                                 // [kQueries, key_k]
  T* d_out;                             // [kQueries, value_k]
  T* q_panels;                          // the same as the right operand, k = queries
  T* d_panels;
  float* delta;  // [kQueries]: sum of d_out * out
  float* dq;     // [kQueries, key width]
};

template <class T>
struct Buffers {
  float *scores, *d_weights;  // [kQueries, kKeys], stride kLine
  T *weights, *d_scores;      // likewise
  T* transposed;              // [kKeys, kQueries]
};

template <class T>
void load_queries(const Core<T>& c, const HeadView<const T>& out, const HeadView<const T>& d_out,
                  QueryBlock<T>& b) {
  const AttentionSizes& s = c.s;
  for (index_t r = 0; r < b.padded; ++r) {
    if (r >= b.rows) {
      std::memset(static_cast<void*>(b.q + r * c.key_k), 0, size(c.key_k) * sizeof(T));
      std::memset(static_cast<void*>(b.d_out + r * c.value_k), 0, size(c.value_k) * sizeof(T));
      continue;
    }
    const index_t n = b.row * s.tokens + b.t0 + r;
    c.query(b.row, b.t0 + r, b.head, b.q + r * c.key_k);
    copy(d_out.at(n, b.head), s.value, b.d_out + r * c.value_k);
    b.delta[r] = c.vector.dot(d_out.at(n, b.head), out.at(n, b.head), s.value);
  }
  for (index_t i = 0; i < c.key_panels(); ++i)
    c.gemm.pack_b(b.q + i * kTile, c.key_k, nullptr, b.padded, std::min(kTile, s.key() - i * kTile),
                  b.q_panels + i * kQueries * kTile);
  for (index_t i = 0; i < c.value_panels(); ++i)
    c.gemm.pack_b(b.d_out + i * kTile, c.value_k, nullptr, b.padded, std::min(kTile, s.value - i * kTile),
                  b.d_panels + i * kQueries * kTile);
  const index_t width = c.key_panels() * kTile;
  std::memset(b.dq, 0, size(kQueries * width) * sizeof(float));
}

// Keys [k0, k1) (whole tiles): weights and their gradients again, then what they add to dq, dk and dv.
template <class T>
void backward_tile(const Core<T>& c, const Packed<T>& p, const QueryBlock<T>& b, const Buffers<T>& w,
                   index_t k0, index_t k1, const float* lse, const KeySums& sums) {
  const AttentionSizes& s = c.s;
  const std::int32_t* const documents = c.documents(b.row);
  for (index_t r0 = 0; r0 < b.padded; r0 += kTile) {
    const index_t end = std::min(k1, b.t0 + r0 + kTile);  // later keys are seen by none of these queries
    for (index_t key = k0; key < end; key += kTile) {
      c.gemm.block(b.q + r0 * c.key_k, c.key_k, kTile, p.keys_transposed + key * c.key_k, c.key_k,
                   w.scores + r0 * kLine + key - k0, kLine, false);
      c.gemm.block(b.d_out + r0 * c.value_k, c.value_k, kTile, p.values_transposed + key * c.value_k,
                   c.value_k, w.d_weights + r0 * kLine + key - k0, kLine, false);
    }
  }
  for (index_t r = 0; r < b.padded; ++r) {
    const index_t t = b.t0 + r, end = r < b.rows ? std::clamp(t + 1 - k0, index_t{0}, k1 - k0) : 0;
    c.vector.softmax_row_backward(
        w.scores + r * kLine, w.d_weights + r * kLine, 0, end, k1 - k0, static_cast<float>(s.scale),
        documents != nullptr ? documents + k0 : nullptr,
        documents != nullptr && r < b.rows ? documents[t] : 0, r < b.rows ? lse[t] : 0,
        r < b.rows ? b.delta[r] : 0, w.weights + r * kLine, w.d_scores + r * kLine);
  }
  for (index_t r0 = 0; r0 < b.padded; r0 += kTile) {
    const index_t end = std::min(k1, b.t0 + r0 + kTile);
    if (end <= k0) continue;
    for (index_t i = 0; i < c.key_panels(); ++i)
      c.gemm.block(w.d_scores + r0 * kLine, kLine, kTile, p.keys_plain + (i * c.tokens + k0) * kTile,
                   end - k0, b.dq + r0 * sums.key_width + i * kTile, sums.key_width, true);
  }
  const index_t keys = k1 - k0;
  c.gemm.pack_a_transposed(w.weights, kLine, nullptr, b.padded, keys, w.transposed, kQueries);
  for (index_t key = 0; key < keys; key += kTile)
    for (index_t i = 0; i < c.value_panels(); ++i)
      c.gemm.block(w.transposed + key * kQueries, kQueries, kTile, b.d_panels + i * kQueries * kTile,
                   b.padded, sums.values + (k0 + key) * sums.value_width + i * kTile, sums.value_width, true);
  c.gemm.pack_a_transposed(w.d_scores, kLine, nullptr, b.padded, keys, w.transposed, kQueries);
  for (index_t key = 0; key < keys; key += kTile)
    for (index_t i = 0; i < c.key_panels(); ++i)
      c.gemm.block(w.transposed + key * kQueries, kQueries, kTile, b.q_panels + i * kQueries * kTile,
                   b.padded, sums.keys + (k0 + key) * sums.key_width + i * kTile, sums.key_width, true);
}

template <class T>
void backward_head(const Core<T>& c, const Packed<T>& p, index_t row, index_t head,
                   const HeadView<const T>& out, const HeadView<const T>& d_out, const float* lse,
                   const KeySums& sums, const HeadView<T>& dq) {
  const AttentionSizes& s = c.s;
  Workspace::Frame frame(thread_workspace());
  QueryBlock<T> b{.row = row,
                  .head = head,
                  .t0 = 0,
                  .rows = 0,
                  .padded = 0,
                  .q = take_zeros<T>(frame, kQueries * c.key_k),
                  .d_out = take_zeros<T>(frame, kQueries * c.value_k),
                  .q_panels = frame.take<T>(size(c.key_panels() * kQueries * kTile)),
                  .d_panels = frame.take<T>(size(c.value_panels() * kQueries * kTile)),
                  .delta = frame.take<float>(size(kQueries)),
                  .dq = frame.take<float>(size(kQueries * sums.key_width))};
  const Buffers<T> w{frame.take<float>(size(kQueries * kLine)), frame.take<float>(size(kQueries * kLine)),
                     frame.take<T>(size(kQueries * kLine)), frame.take<T>(size(kQueries * kLine)),
                     frame.take<T>(size(kQueries * kKeys))};
  for (b.t0 = 0; b.t0 < s.tokens; b.t0 += kQueries) {
    b.rows = std::min(kQueries, s.tokens - b.t0);
    b.padded = round_up(b.rows, kTile);
    load_queries(c, out, d_out, b);
    const index_t first = c.first_key(row, b.t0, b.rows) / kTile * kTile, end = b.t0 + b.padded;
    for (index_t k0 = first; k0 < end; k0 += kKeys)
      backward_tile(c, p, b, w, k0, std::min(end, k0 + kKeys), lse, sums);
    const index_t n = row * s.tokens + b.t0;
    c.vector.store(b.dq, sums.key_width, b.rows, s.plain, dq.at(n, head), dq.token, 1.0F, false);
    for (index_t r = 0; r < b.rows; ++r)
      c.rotate_back(b.dq + r * sums.key_width + s.plain, b.t0 + r, dq.at(n + r, head) + s.plain);
  }
}

}  // namespace

template <class T>
void attention_forward(Isa isa, const AttentionSizes& sizes, const AttentionInputs<T>& in,
                       const HeadView<T>& out, float* lse) {
  const Core<T> core(isa, sizes, in);
  each_kv_head(sizes, [&](index_t row, index_t kv_head) {
    Workspace::Frame frame(thread_workspace());
    const Packed<T> packed = pack(core, row, kv_head, false, frame);
    core.gemm.begin();
    for (index_t g = 0; g < core.group(); ++g) {
      const index_t head = kv_head * core.group() + g;
      forward_head(core, packed, row, head, out, lse + (row * sizes.heads + head) * sizes.tokens);
    }
    core.gemm.end();
  });
}

template <class T>
void attention_backward(Isa isa, const AttentionSizes& sizes, const AttentionInputs<T>& in,
                        const HeadView<const T>& out, const HeadView<const T>& d_out, const float* lse,
                        const AttentionGradients<T>& gradients) {
  const Core<T> core(isa, sizes, in);
  const bool shared = in.k_rotated.head == 0 && sizes.kv_heads > 1;
  const index_t tokens = sizes.tokens, rotated = sizes.rotated;
  Workspace::Frame frame(thread_workspace());
  float* const partial =
      shared ? frame.take<float>(size(sizes.rows * sizes.kv_heads * tokens * rotated)) : nullptr;
  each_kv_head(sizes, [&](index_t row, index_t kv_head) {
    Workspace::Frame own(thread_workspace());
    const Packed<T> packed = pack(core, row, kv_head, true, own);
    const index_t key_width = core.key_panels() * kTile, value_width = core.value_panels() * kTile;
    const KeySums sums{take_zeros<float>(own, core.tokens * key_width),
                       take_zeros<float>(own, core.tokens * value_width), key_width, value_width};
    core.gemm.begin();
    for (index_t g = 0; g < core.group(); ++g) {
      const index_t head = kv_head * core.group() + g;
      backward_head(core, packed, row, head, out, d_out, lse + (row * sizes.heads + head) * tokens, sums,
                    gradients.q);
    }
    core.gemm.end();
    const index_t n = row * tokens;
    if (sizes.plain > 0)
      core.vector.store(sums.keys, key_width, tokens, sizes.plain, gradients.k_plain.at(n, kv_head),
                        gradients.k_plain.token, 1.0F, false);
    core.vector.store(sums.values, value_width, tokens, sizes.value, gradients.v.at(n, kv_head),
                      gradients.v.token, 1.0F, false);
    for (index_t t = 0; t < tokens; ++t) {
      const float* const dk = sums.keys + t * key_width + sizes.plain;
      if (shared)
        copy(dk, rotated, partial + ((row * sizes.kv_heads + kv_head) * tokens + t) * rotated);
      else
        core.rotate_back(dk, t, gradients.k_rotated.at(n + t, kv_head));
    }
  });
  if (!shared) return;
  parallel_for(size(sizes.rows * tokens), 64, [&](std::size_t begin, std::size_t end) {
    Workspace::Frame own(thread_workspace());
    float* const sum = own.take<float>(size(rotated));
    for (auto n = static_cast<index_t>(begin); n < static_cast<index_t>(end); ++n) {
      const index_t row = n / tokens, t = n % tokens;
      std::fill_n(sum, rotated, 0.0F);
      for (index_t h = 0; h < sizes.kv_heads; ++h) {
        const float* const part = partial + ((row * sizes.kv_heads + h) * tokens + t) * rotated;
        for (index_t i = 0; i < rotated; ++i) sum[i] += part[i];
      }
      core.rotate_back(sum, t, gradients.k_rotated.at(n, 0));
    }
  });
}

#define SINEW_ATTENTION(T)                                                                              \
  template void attention_forward<T>(Isa, const AttentionSizes&, const AttentionInputs<T>&,             \
                                     const HeadView<T>&, float*);                                       \
  template void attention_backward<T>(Isa, const AttentionSizes&, const AttentionInputs<T>&,            \
                                      const HeadView<const T>&, const HeadView<const T>&, const float*, \
                                      const AttentionGradients<T>&);
SINEW_ATTENTION(float)
SINEW_ATTENTION(bf16)

}  // namespace sinew
