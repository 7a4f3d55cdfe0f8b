// What attention's forward and backward pass share: heads as they are read, and their keys and values as the
// products take them. Internal linkage: for attention.cpp and attention_backward.cpp alone.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>

#include "base/index.hpp"
#include "base/loop_threads.hpp"
#include "base/threads.hpp"
#include "kernels/attention.hpp"
#include "kernels/read_ahead.hpp"
#include "kernels/vector.hpp"
#include "kernels/workspace.hpp"

namespace sinew {
namespace {

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
  const GemmKernels<T>& scores;  // for products that use their operands often
  const VectorKernels<T>& vector;
  index_t key_k;    // elements of a head of q and k, padded as k of a product
  index_t value_k;  // elements of a head of v likewise
  index_t tokens;   // T rounded up to whole tiles

  Core(Isa isa, const AttentionSizes& sizes, const AttentionInputs<T>& inputs)
      : s(sizes),
        in(inputs),
        gemm(gemm_kernels<T>(isa)),
        scores(product_kernels<T>(isa)),
        vector(vector_kernels<T>(isa)),
        key_k(round_up(sizes.key(), scores.step)),
        value_k(round_up(sizes.value, scores.step)),
        tokens(round_up(sizes.tokens, kTile)) {}

  // Row stride of what has a column for each key: not a power of two, whose rows would share cache sets.
  index_t line() const { return tokens + kTile; }
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

// Asks for token n of a head of `width` elements, to be read or written.
template <class T>
void prefetch_head(const HeadView<T>& view, index_t n, index_t head, index_t width) {
  if (width == 0) return;
  constexpr index_t kLineElements = 64 / static_cast<index_t>(sizeof(T));
  T* const x = view.at(n, head);
  for (index_t i = 0; i < width; i += kLineElements) __builtin_prefetch(x + i, !std::is_const_v<T>, 2);
  __builtin_prefetch(x + width - 1, !std::is_const_v<T>, 2);
}

// Keys and values of one head as the products take them.
template <class T>
struct Packed {
  T* keys = nullptr;             // [tokens, key_k], rotated
  T* keys_transposed = nullptr;  // panels of 32 keys, k = key_k, as Core::scores wants them
  T* values = nullptr;           // panels of 32 value elements, k = tokens: for the output
  T* keys_plain = nullptr;       // panels of 32 key elements, k = tokens: for the gradient of q
  T* values_transposed =
      nullptr;  // panels of 32 keys, k = value_k, likewise: for the gradient of the weights
};

template <class T>
Packed<T> pack(const Core<T>& c, index_t row, index_t head, bool backward, Workspace::Frame& frame) {
  const AttentionSizes& s = c.s;
  const T* const v = c.in.v.at(row * s.tokens, head);
  Packed<T> p;
  p.keys = take_zeros<T>(frame, c.tokens * c.key_k);
  for (index_t t = 0; t < s.tokens; ++t) c.key(row, t, head, p.keys + t * c.key_k);
  const index_t panels = c.tokens / kTile, key_panel = c.scores.panel_size(c.key_k);
  p.keys_transposed = frame.take<T>(size(panels * key_panel));
  for (index_t i = 0; i < panels; ++i)
    c.scores.pack_b_transposed(p.keys + i * kTile * c.key_k, c.key_k, kTile, c.key_k,
                               p.keys_transposed + i * key_panel);
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
  const index_t value_panel = c.scores.panel_size(c.value_k);
  p.values_transposed = frame.take<T>(size(panels * value_panel));
  for (index_t i = 0, t = 0; i < panels; ++i, t += kTile)
    c.scores.pack_b_transposed(v + t * c.in.v.token, c.in.v.token, std::min(kTile, s.tokens - t), s.value,
                               p.values_transposed + i * value_panel);
  return p;
}

// A head of queries, and the one that its thread turns to after it. A head's tokens lie far apart: the next
// one's are asked for while this one is computed, a few at a time, for a burst of them would have to wait.
struct HeadTask {
  index_t row, head;
  index_t next_row, next_head, next_kv_head;  // < 0: nothing comes after it; the keys are the same
};

// Token t of the inputs of the head after `task`, and of `more` heads of values.
template <class T, class... More>
void prefetch_next(const Core<T>& c, const HeadTask& task, index_t t, const More&... more) {
  if (task.next_row < 0) return;
  const AttentionInputs<T>& in = c.in;
  const index_t n = task.next_row * c.s.tokens + t;
  prefetch_head(in.q, n, task.next_head, c.s.key());
  (prefetch_head(more, n, task.next_head, c.s.value), ...);
  if (task.next_kv_head < 0) return;
  prefetch_head(in.k_plain, n, task.next_kv_head, c.s.plain);
  prefetch_head(in.k_rotated, n, task.next_kv_head, c.s.rotated);
  prefetch_head(in.v, n, task.next_kv_head, c.s.value);
}

// Reads what kv heads [head, head + count) of a row are made of, where a token's heads lie side by side:
// those of one head alone lie far apart.
template <class T>
void read_inputs(const Core<T>& c, index_t row, index_t head, index_t count) {
  const auto read = [](const HeadView<const T>& view, index_t n, index_t first, index_t heads,
                       index_t width) {
    const index_t all = (heads - 1) * view.head + width;
    if (width > 0 && all <= view.token) read_through(view.at(n, first), size(all) * sizeof(T));
  };
  for (index_t n = row * c.s.tokens; n < (row + 1) * c.s.tokens; ++n) {
    read(c.in.k_plain, n, head, count, c.s.plain);
    read(c.in.k_rotated, n, head, count, c.s.rotated);
    read(c.in.v, n, head, count, c.s.value);
    read(c.in.q, n, head * c.group(), count * c.group(), c.s.key());
  }
}

// Body(row, kv head, heads) on all threads, heads(f): f(task) for each head of queries of that kv head.
template <class T, class Body>
void each_kv_head(const Core<T>& c, const Body& body) {
  const AttentionSizes& s = c.s;
  const index_t count = s.rows * s.kv_heads, group = s.heads / s.kv_heads;
  const index_t grain = std::max(index_t{1}, count / (8 * loop_threads()));
  parallel_for(size(count), size(grain), [&](std::size_t begin, std::size_t end) {
    for (auto i = static_cast<index_t>(begin); i < static_cast<index_t>(end); ++i) {
      const bool more = i + 1 < static_cast<index_t>(end);
      const index_t row = i / s.kv_heads, kv_head = i % s.kv_heads;
      if (kv_head == 0 || i == static_cast<index_t>(begin))
        read_inputs(c, row, kv_head, std::min(s.kv_heads - kv_head, static_cast<index_t>(end) - i));
      body(row, kv_head, [&](const auto& f) {
        for (index_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
          HeadTask task{row, head, row, head + 1, -1};
          if (head + 1 == (kv_head + 1) * group) {
            task.next_row = more ? (i + 1) / s.kv_heads : -1;
            task.next_kv_head = (i + 1) % s.kv_heads;
            task.next_head = task.next_kv_head * group;
          }
          f(task);
        }
      });
    }
  });
}

}  // namespace
}  // namespace sinew
