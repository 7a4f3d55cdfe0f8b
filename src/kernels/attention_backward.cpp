#include "kernels/attention_core.hpp"

namespace sinew {
namespace {

constexpr index_t kQueries = 128;         // rows of a block
constexpr index_t kKeys = 256;            // its keys
constexpr index_t kLine = kKeys + kTile;  // their row stride, as Core::line()

// Sums over all queries of one head, fp32 and transposed, so that weights and their gradients are the right
// operand of the products that make them: gradients of the keys (rotated), [key to whole tiles, ld], and of
// the values, [value to whole tiles, ld].
struct KeySums {
  float *keys, *values;
  index_t ld;
};

// One block of queries of one head.
template <class T>
struct QueryBlock {
  index_t row, head, t0, rows, padded;  // padded: to whole tiles
  T *q, *q_transposed;                  // [kQueries, key_k], [key, kQueries]
  T *d_out, *d_transposed;              // [kQueries, value_k], [value, kQueries]
  float* delta;                         // [kQueries]: sum of d_out * out
  float* dq;                            // [kQueries, dq_ld]
  index_t dq_ld;
};

template <class T>
struct Buffers {
  T *q_left, *d_left;                 // rows of q and d_out as Core::scores wants them
  float *scores, *d_weights;          // [kTile, kKeys], stride kLine
  T* d_scores;                        // likewise
  T *weight_panels, *d_score_panels;  // panels of 32 keys, k = queries; kPanel elements each
};
constexpr index_t kPanel = kQueries * kTile;

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
  c.gemm.pack_a_transposed(b.q, c.key_k, nullptr, b.padded, s.key(), b.q_transposed, kQueries);
  c.gemm.pack_a_transposed(b.d_out, c.value_k, nullptr, b.padded, s.value, b.d_transposed, kQueries);
  std::memset(b.dq, 0, size(kQueries * b.dq_ld) * sizeof(float));
}

// Queries [r0, r0 + kTile) of the block and keys [k0, k1): weights and their gradients again, and what they
// add to dq. ask_ahead(r): before query r of the block.
template <class T, class Ask>
void backward_rows(const Core<T>& c, const Packed<T>& p, const QueryBlock<T>& b, const Buffers<T>& w,
                   index_t r0, index_t k0, index_t k1, const float* lse, const Ask& ask_ahead) {
  const AttentionSizes& s = c.s;
  const std::int32_t* const documents = c.documents(b.row);
  const index_t end = std::min(k1, b.t0 + r0 + kTile);  // later keys are seen by none of these queries
  const Left<T> q = c.scores.left(b.q + r0 * c.key_k, c.key_k, kTile, c.key_k, w.q_left);
  const Left<T> d = c.scores.left(b.d_out + r0 * c.value_k, c.value_k, kTile, c.value_k, w.d_left);
  for (index_t key = k0; key < end; key += kTile) {
    const index_t panel = key / kTile;
    c.scores.block(q.a, q.lda, kTile, p.keys_transposed + panel * c.scores.panel_size(c.key_k), c.key_k,
                   w.scores + key - k0, kLine, false);
    c.scores.block(d.a, d.lda, kTile, p.values_transposed + panel * c.scores.panel_size(c.value_k), c.value_k,
                   w.d_weights + key - k0, kLine, false);
  }
  const auto seen_by = [&](index_t r) {
    const index_t t = b.t0 + r;
    if (r >= b.rows) return WeightRow{};
    return WeightRow{.end = std::clamp(t + 1 - k0, index_t{0}, k1 - k0),
                     .document = documents != nullptr ? documents[t] : 0,
                     .lse = lse[t],
                     .delta = b.delta[r]};
  };
  for (index_t r = r0; r < r0 + kTile; r += 2) {
    ask_ahead(r);
    ask_ahead(r + 1);
    const WeightRow pair[2] = {seen_by(r), seen_by(r + 1)};
    const index_t at = (r - r0) * kLine;
    c.vector.softmax_backward(w.scores + at, w.d_weights + at, kLine, pair, k1 - k0,
                              static_cast<float>(s.scale), documents != nullptr ? documents + k0 : nullptr,
                              w.d_scores + at, w.weight_panels + r * kTile, w.d_score_panels + r * kTile,
                              kPanel);
  }
  for (index_t i = 0; i < c.key_panels() && end > k0; ++i)
    c.gemm.block(w.d_scores, kLine, kTile, p.keys_plain + (i * c.tokens + k0) * kTile, end - k0,
                 b.dq + r0 * b.dq_ld + i * kTile, b.dq_ld, true);
}

// sums [n, keys k0 to k1] += left [n, kQueries] * panels of [queries, keys]: of each panel from the first
// query on that may see one of its keys.
template <class T>
void add_to_keys(const Core<T>& c, const QueryBlock<T>& b, const T* left, index_t n, const T* panels,
                 index_t k0, index_t k1, float* sums, index_t ld) {
  for (index_t key = k0; key < k1; key += kTile) {
    const index_t first = std::max(index_t{0}, key - b.t0);
    const T* const panel = panels + (key - k0) / kTile * kPanel + first * kTile;
    for (index_t i = 0; i < n; i += kTile)
      c.gemm.block(left + i * kQueries + first, kQueries, std::min(kTile, n - i), panel, b.padded - first,
                   sums + i * ld + key, ld, true);
  }
}

template <class T>
void backward_head(const Core<T>& c, const Packed<T>& p, const HeadTask& task, const HeadView<const T>& out,
                   const HeadView<const T>& d_out, const float* lse, const KeySums& sums,
                   const HeadView<T>& dq) {
  const AttentionSizes& s = c.s;
  const index_t row = task.row, head = task.head;
  Workspace::Frame frame(thread_workspace());
  const index_t width = c.key_panels() * kTile;
  QueryBlock<T> b{.row = row,
                  .head = head,
                  .t0 = 0,
                  .rows = 0,
                  .padded = 0,
                  .q = take_zeros<T>(frame, kQueries * c.key_k),
                  .q_transposed = frame.take<T>(size(width * kQueries)),
                  .d_out = take_zeros<T>(frame, kQueries * c.value_k),
                  .d_transposed = frame.take<T>(size(c.value_panels() * kTile * kQueries)),
                  .delta = frame.take<float>(size(kQueries)),
                  .dq = frame.take<float>(size(kQueries * width)),
                  .dq_ld = width};
  const Buffers<T> w{.q_left = frame.take<T>(size(c.scores.left_size(c.key_k))),
                     .d_left = frame.take<T>(size(c.scores.left_size(c.value_k))),
                     .scores = frame.take<float>(size(kTile * kLine)),
                     .d_weights = frame.take<float>(size(kTile * kLine)),
                     .d_scores = frame.take<T>(size(kTile * kLine)),
                     .weight_panels = frame.take<T>(size(kKeys / kTile * kPanel)),
                     .d_score_panels = frame.take<T>(size(kKeys / kTile * kPanel))};
  for (b.t0 = 0; b.t0 < s.tokens; b.t0 += kQueries) {
    b.rows = std::min(kQueries, s.tokens - b.t0);
    b.padded = round_up(b.rows, kTile);
    load_queries(c, out, d_out, b);
    const index_t first = c.first_key(row, b.t0, b.rows) / kTile * kTile, end = b.t0 + b.padded;
    for (index_t k0 = first; k0 < end; k0 += kKeys) {
      const index_t k1 = std::min(end, k0 + kKeys);
      const auto ask_ahead = [&](index_t r) {
        if (k0 == first && r < b.rows) prefetch_next(c, task, b.t0 + r, out, d_out);
      };
      for (index_t r = 0; r < b.padded; r += kTile) backward_rows(c, p, b, w, r, k0, k1, lse, ask_ahead);
      add_to_keys(c, b, b.d_transposed, s.value, w.weight_panels, k0, k1, sums.values, sums.ld);
      add_to_keys(c, b, b.q_transposed, s.key(), w.d_score_panels, k0, k1, sums.keys, sums.ld);
    }
    const index_t n = row * s.tokens + b.t0;
    c.vector.store(b.dq, b.dq_ld, b.rows, s.plain, dq.at(n, head), dq.token, 1.0F, false);
    for (index_t r = 0; r < b.rows; ++r)
      c.rotate_back(b.dq + r * b.dq_ld + s.plain, b.t0 + r, dq.at(n + r, head) + s.plain);
  }
}

}  // namespace

template <class T>
void attention_backward(Isa isa, const AttentionSizes& sizes, const AttentionInputs<T>& in,
                        const HeadView<const T>& out, const HeadView<const T>& d_out, const float* lse,
                        const AttentionGradients<T>& gradients) {
  const Core<T> core(isa, sizes, in);
  const GemmKernels<float>& transposer = gemm_kernels<float>(isa);
  const bool shared = in.k_rotated.head == 0 && sizes.kv_heads > 1;
  const index_t tokens = sizes.tokens, rotated = sizes.rotated;
  Workspace::Frame frame(thread_workspace());
  float* const partial =
      shared ? frame.take<float>(size(sizes.rows * sizes.kv_heads * tokens * rotated)) : nullptr;
  each_kv_head(core, [&](index_t row, index_t kv_head, const auto& heads) {
    Workspace::Frame own(thread_workspace());
    const Packed<T> packed = pack(core, row, kv_head, true, own);
    const index_t key_width = core.key_panels() * kTile, value_width = core.value_panels() * kTile;
    const KeySums sums{.keys = take_zeros<float>(own, key_width * core.line()),
                       .values = take_zeros<float>(own, value_width * core.line()),
                       .ld = core.line()};
    core.scores.begin();
    heads([&](const HeadTask& task) {
      backward_head(core, packed, task, out, d_out, lse + (row * sizes.heads + task.head) * tokens, sums,
                    gradients.q);
    });
    core.scores.end();
    float* const d_keys = own.take<float>(size(core.tokens * key_width));
    float* const d_values = own.take<float>(size(core.tokens * value_width));
    transposer.pack_a_transposed(sums.keys, sums.ld, nullptr, sizes.key(), tokens, d_keys, key_width);
    transposer.pack_a_transposed(sums.values, sums.ld, nullptr, sizes.value, tokens, d_values, value_width);
    const index_t n = row * tokens;
    if (sizes.plain > 0)
      core.vector.store(d_keys, key_width, tokens, sizes.plain, gradients.k_plain.at(n, kv_head),
                        gradients.k_plain.token, 1.0F, false);
    core.vector.store(d_values, value_width, tokens, sizes.value, gradients.v.at(n, kv_head),
                      gradients.v.token, 1.0F, false);
    for (index_t t = 0; t < tokens; ++t) {
      const float* const dk = d_keys + t * key_width + sizes.plain;
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

template void attention_backward<float>(Isa, const AttentionSizes&, const AttentionInputs<float>&,
                                        const HeadView<const float>&, const HeadView<const float>&,
                                        const float*, const AttentionGradients<float>&);
template void attention_backward<bf16>(Isa, const AttentionSizes&, const AttentionInputs<bf16>&,
                                       const HeadView<const bf16>&, const HeadView<const bf16>&, const float*,
                                       const AttentionGradients<bf16>&);

}  // namespace sinew
