#include "kernels/experts.hpp"

#include "kernels/expert_layer.hpp"

namespace sinew {
namespace {

// What forward takes and fills.
template <class T>
struct Forward {
  const T* x;
  const float* weight;
  T* saved;  // or null
  T* slots;
};

// Gate and up products of one block, their panels [p0, p1); act [32, wide].
template <class T>
void gate_and_up(const Layer<T>& layer, const Panels<T>& panels, const RowBlock& b, const Left<T>& left,
                 T* act, T* saved, index_t p0, index_t p1, TilePipeline<T>& tiles) {
  const index_t k = padded_k<T>(layer.hidden), panel = layer.gemm.panel_size(k);
  for (index_t p = p0; p < p1; ++p) {
    const float* const gate = tiles.multiply(left.a, left.lda, b.rows, panels.first + p * panel, k);
    const float* const up = tiles.multiply(left.a, left.lda, b.rows, panels.second + p * panel, k);
    T* const h = saved_tile(saved, b.rows, p);
    tiles.then({.kind = TileWork<T>::Kind::swiglu,
                .rows = b.rows,
                .tile = gate,
                .up_tile = up,
                .past = layer.past,
                .gate = h,
                .up = h + b.rows * kTile,
                .act = act + p * kTile,
                .ld_act = layer.wide},
               2);
  }
  tiles.finish();
}

// The down product of one block, its panels [p0, p1).
template <class T>
void down(const Layer<T>& layer, const Panels<T>& panels, const RowBlock& b, const Left<T>& act, T* slots,
          index_t p0, index_t p1, TilePipeline<T>& tiles) {
  const index_t wide = layer.wide, panel = layer.gemm.panel_size(wide);
  for (index_t p = p0; p < p1; ++p) {
    const float* const tile = tiles.multiply(act.a, act.lda, b.rows, panels.third + p * panel, wide);
    tiles.then(slot_columns(layer, b, tile, b.weights, slots, p));
  }
  tiles.finish();
}

template <class T>
void forward_part(const Layer<T>& layer, const Part<T>& part, const Forward<T>& to) {
  Workspace::Frame own(thread_workspace());
  const index_t k = padded_k<T>(layer.hidden), wide = layer.wide, step = rows_at_once(layer, part);
  T* const x = own.take<T>(size(round_up(step, kTile) * k));
  T* const act = own.take<T>(size(round_up(step, kTile) * wide));
  T* const made = own.take<T>(size(layer.gemm.left_size(std::max(k, wide))));
  T* const scrap = to.saved == nullptr ? own.take<T>(size(expert_saved_size(layer.weights, kTile))) : nullptr;
  TilePipeline<T> tiles(layer.gemm, layer.vector, own);
  if (part.whole) pack_expert(layer, part.expert, part.panels, 0, 2);
  for (index_t first = part.begin; first < part.end; first += step) {
    const index_t last = std::min(part.end, first + step);
    each_group(layer, layer.width_panels(), 2 * layer.gemm.panel_size(k), [&](index_t p0, index_t p1) {
      for (index_t r = first; r < last; r += kTile) {
        RowBlock b = row_block(layer.rows, r, part.end, nullptr);
        if (p0 == 0)
          gather(to.x, layer.hidden, b.tokens, b.rows, x + (r - first) * k);
        else
          b.next = 0;
        T* const saved = to.saved == nullptr ? scrap : to.saved + expert_saved_size(layer.weights, r);
        tiles.ask(to.x, layer.hidden, b.tokens + b.rows, b.next, layer.hidden, layer.panels());
        gate_and_up(layer, part.panels, b, layer.gemm.left(x + (r - first) * k, k, b.rows, k, made),
                    act + (r - first) * wide, saved, p0, p1, tiles);
      }
    });
    if (part.whole && first == part.begin) pack_expert(layer, part.expert, part.panels, 2, 3);
    each_group(layer, layer.hidden_panels(), layer.gemm.panel_size(wide), [&](index_t p0, index_t p1) {
      for (index_t r = first; r < last; r += kTile) {
        const RowBlock b = row_block(layer.rows, r, part.end, to.weight);
        const T* const rows = act + (r - first) * wide;
        down(layer, part.panels, b, layer.gemm.left(rows, wide, b.rows, wide, made), to.slots, p0, p1, tiles);
      }
    });
  }
}

}  // namespace

template <class T>
void experts_forward(Isa isa, const ExpertMatrices<T>& weights, const ExpertRows& rows, const T* x,
                     const float* weight, const T* addend, T* y, T* saved) {
  const Layer<T> layer(isa, weights, rows, true);
  Workspace::Frame frame(thread_workspace());
  const bool direct = rows.top_k == 1 && addend == nullptr;
  T* const slots = direct ? y : frame.take<T>(size(rows.tokens * rows.top_k * layer.hidden));
  clear_dropped(layer, slots);
  const Forward<T> to{x, weight, saved, slots};
  for_expert_rows(layer, [&](const Part<T>& part) {
    layer.gemm.begin();
    forward_part(layer, part, to);
    layer.gemm.end();
  });
  if (!direct) combine(layer, slots, addend, y);
}

#define SINEW_EXPERTS(T)                                                                                     \
  template void experts_forward<T>(Isa, const ExpertMatrices<T>&, const ExpertRows&, const T*, const float*, \
                                   const T*, T*, T*);
SINEW_EXPERTS(float)
SINEW_EXPERTS(bf16)

}  // namespace sinew
