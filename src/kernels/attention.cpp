#include "kernels/attention_core.hpp"

namespace sinew {
namespace {

template <class T>
void forward_head(const Core<T>& c, const Packed<T>& p, const HeadTask& task, const HeadView<T>& out,
                  float* lse) {
  const AttentionSizes& s = c.s;
  const index_t row = task.row, head = task.head;
  Workspace::Frame frame(thread_workspace());
  T* const q = take_zeros<T>(frame, kTile * c.key_k);
  const index_t ld = c.line();
  float* const scores = frame.take<float>(size(kTile * ld));
  T* const weights = take_zeros<T>(frame, kTile * ld);
  T* const made = frame.take<T>(size(c.scores.left_size(c.key_k)));
  const index_t panel = c.scores.panel_size(c.key_k);
  const std::int32_t* const documents = c.documents(row);
  const auto scale = static_cast<float>(s.scale);
  for (index_t t0 = 0; t0 < s.tokens; t0 += kTile) {
    const index_t rows = std::min(kTile, s.tokens - t0), end = t0 + kTile;  // keys of whole tiles
    const index_t first = c.first_key(row, t0, rows) / kTile * kTile;
    for (index_t r = 0; r < rows; ++r) c.query(row, t0 + r, head, q + r * c.key_k);
    const Left<T> left = c.scores.left(q, c.key_k, rows, c.key_k, made);
    for (index_t key = first; key < end; key += kTile)
      c.scores.block(left.a, left.lda, rows, p.keys_transposed + key / kTile * panel, c.key_k, scores + key,
                     ld, false);
    float inverse[kTile], top = 0;
    for (index_t r = 0; r < rows; ++r) {
      const index_t t = t0 + r;
      prefetch_next(c, task, t);
      prefetch_head(out, row * s.tokens + t, head, s.value);
      const float sum =
          c.vector.softmax_row(scores + r * ld + first, 0, t + 1 - first, end - first, scale,
                               documents != nullptr ? documents + first : nullptr,
                               documents != nullptr ? documents[t] : 0, weights + r * ld + first, &top);
      lse[t] = top + std::log(sum);
      inverse[r] = 1 / sum;
    }
    alignas(64) float tile[kTile * kTile];
    for (index_t i = 0; i < c.value_panels(); ++i) {
      c.gemm.block(weights + first, ld, rows, p.values + i * c.tokens * kTile + first * kTile, end - first,
                   tile, kTile, false);
      const TileWork<T> store{.kind = TileWork<T>::Kind::rows,
                              .columns = std::min(kTile, s.value - i * kTile),
                              .tile = tile,
                              .weight = inverse,
                              .out = out.at(row * s.tokens + t0, head) + i * kTile,
                              .ld = out.token};
      c.vector.work(store)(store, 0, rows);
    }
  }
}

}  // namespace

template <class T>
void attention_forward(Isa isa, const AttentionSizes& sizes, const AttentionInputs<T>& in,
                       const HeadView<T>& out, float* lse) {
  const Core<T> core(isa, sizes, in);
  each_kv_head(core, [&](index_t row, index_t kv_head, const auto& heads) {
    Workspace::Frame frame(thread_workspace());
    const Packed<T> packed = pack(core, row, kv_head, false, frame);
    core.scores.begin();
    heads([&](const HeadTask& task) {
      forward_head(core, packed, task, out, lse + (row * sizes.heads + task.head) * sizes.tokens);
    });
    core.scores.end();
  });
}

template void attention_forward<float>(Isa, const AttentionSizes&, const AttentionInputs<float>&,
                                       const HeadView<float>&, float*);
template void attention_forward<bf16>(Isa, const AttentionSizes&, const AttentionInputs<bf16>&,
                                      const HeadView<bf16>&, float*);

}  // namespace sinew
