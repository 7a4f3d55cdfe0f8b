#include "kernels/expert_layer.hpp"
#include "kernels/matmul.hpp"

namespace sinew {
namespace {

template <class T>
struct Backward {
  const T* x = nullptr;
  const T* dy = nullptr;
  const float* weight = nullptr;
  const T* saved = nullptr;
  T* d_h = nullptr;    // [rows, 2 * wide]: gradients of the gate and up products
  T* act = nullptr;    // [rows, wide]: weighted activations
  T* slots = nullptr;  // [tokens * top_k, hidden]: gradients of x by slot; null: not wanted
  float* d_weight = nullptr;
};

// Gradients of one block's gate and up products and its weighted activations from dy's rows, panels [p0, p1).
// dot [32] grows by what these panels give of the weights' gradients.
template <class T>
void backward_hidden(const Layer<T>& layer, const Panels<T>& panels, const RowBlock& b, const Backward<T>& to,
                     const Left<T>& dy, T* d_h, T* act, float* dot, index_t p0, index_t p1,
                     TilePipeline<T>& tiles) {
  const index_t k = padded_k<T>(layer.hidden), wide = layer.wide;
  T* const saved = const_cast<T*>(to.saved) + b.first * 2 * wide;  // only read here
  for (index_t p = p0; p < p1; ++p) {
    const index_t c = p * kTile;
    const float* const tile =
        tiles.multiply(dy.a, dy.lda, b.rows, panels.third + p * layer.gemm.panel_size(k), k);
    T* const h = saved_tile(saved, b.rows, p);
    tiles.ask(h + 2 * b.rows * kTile, 0, nullptr, 1, 2 * b.rows * kTile, 1);  // the next tile
    tiles.then({.kind = TileWork<T>::Kind::swiglu_backward,
                .rows = b.rows,
                .tile = tile,
                .weight = b.weights,
                .gate = h,
                .up = h + b.rows * kTile,
                .act = act + c,
                .ld_act = wide,
                .dot = dot,
                .d_gate = d_h + c,
                .d_up = d_h + wide + c,
                .ld_d = 2 * wide});
  }
  tiles.finish();
}

// The gradient of one block's x, panels [p0, p1).
template <class T>
void backward_input(const Layer<T>& layer, const Panels<T>& panels, const RowBlock& b, const Backward<T>& to,
                    const Left<T>& d_h, index_t p0, index_t p1, TilePipeline<T>& tiles) {
  const index_t k = 2 * layer.wide, hidden = layer.hidden;
  tiles.ask(to.dy, hidden, b.tokens + b.rows, b.next, hidden, p1 - p0);
  for (index_t p = p0; p < p1; ++p) {
    const float* const tile =
        tiles.multiply(d_h.a, d_h.lda, b.rows, panels.first + p * layer.gemm.panel_size(k), k);
    tiles.then(slot_columns<T>(layer, b, tile, nullptr, to.slots, p));
  }
  tiles.finish();
}

// d_h and act of row r stand at row place(r) of theirs. done(block, its rows of dy, d_h, act): when they are
// there.
template <class T, class Place, class Done>
void backward_part(const Layer<T>& layer, const Part<T>& part, const Backward<T>& to, const Place& place,
                   const Done& done) {
  Workspace::Frame own(thread_workspace());
  const index_t k = padded_k<T>(layer.hidden), wide = layer.wide, step = rows_at_once(layer, part);
  T* const dy = own.take<T>(size(round_up(step, kTile) * k));
  T* const made = own.take<T>(size(layer.gemm.left_size(std::max(k, 2 * wide))));
  float* const dots = own.take<float>(size(round_up(step, kTile)));
  TilePipeline<T> tiles(layer.gemm, layer.vector, own);
  if (part.whole) pack_expert(layer, part.expert, part.panels, 2, 3);
  for (index_t first = part.begin; first < part.end; first += step) {
    const index_t last = std::min(part.end, first + step);
    std::fill_n(dots, round_up(step, kTile), 0.0F);
    each_group(layer, layer.width_panels(), layer.gemm.panel_size(k), [&](index_t p0, index_t p1) {
      for (index_t r = first; r < last; r += kTile) {
        const RowBlock b = row_block(layer.rows, r, part.end, to.weight);
        T *const a = dy + (r - first) * k, *const d_h = to.d_h + place(r) * 2 * wide;
        T* const act = to.act + place(r) * wide;
        float* const dot = dots + (r - first);
        if (p0 == 0) gather(to.dy, layer.hidden, b.tokens, b.rows, a);
        backward_hidden(layer, part.panels, b, to, layer.gemm.left(a, k, b.rows, k, made), d_h, act, dot, p0,
                        p1, tiles);
        if (p1 < layer.width_panels()) continue;
        for (index_t i = 0; i < b.rows && to.d_weight != nullptr; ++i) to.d_weight[b.slots[i]] = dot[i];
        done(b, a, d_h, act);
      }
    });
    if (to.slots == nullptr) continue;
    if (part.whole && first == part.begin) pack_expert(layer, part.expert, part.panels, 0, 2);
    each_group(layer, layer.hidden_panels(), layer.gemm.panel_size(2 * wide), [&](index_t p0, index_t p1) {
      for (index_t r = first; r < last; r += kTile) {
        RowBlock b = row_block(layer.rows, r, part.end, nullptr);
        if (step > kTile) b.next = 0;  // its rows have been here
        const T* const rows = to.d_h + place(r) * 2 * wide;
        backward_input(layer, part.panels, b, to, layer.gemm.left(rows, 2 * wide, b.rows, 2 * wide, made), p0,
                       p1, tiles);
      }
    });
  }
}

// The operands of one expert's weight gradients, packed block by block while its rows are in the cache.
template <class T>
struct Operands {
  index_t k, depth;  // rows, padded as they are stored and as block() wants them
  T* d_h;            // [2 * wide, k]
  T* dy;             // [hidden to whole tiles, k]
  T* x;              // panels of 32 columns of hidden
  T* act;            // panels of 32 columns of width

  // x takes dy's place when that has been used.
  Operands(const Layer<T>& layer, index_t rows, Workspace::Frame& frame)
      : k(padded_k<T>(rows)),
        depth(round_up(rows, layer.gemm.block_step)),
        d_h(frame.take<T>(size(2 * layer.wide * k))),
        dy(frame.take<T>(size(layer.hidden_panels() * layer.gemm.panel_size(k)))),
        x(dy),
        act(frame.take<T>(size(layer.width_panels() * layer.gemm.panel_size(k)))) {}

  void add(const Layer<T>& layer, const RowBlock& b, index_t at, const T* a, const T* block_d_h,
           const T* block_act) {
    const index_t hidden = layer.hidden, wide = layer.wide;
    const GemmKernels<T>& gemm = layer.gemm;
    gemm.pack_a_transposed(block_d_h, 2 * wide, nullptr, b.rows, 2 * wide, d_h + at, k);
    gemm.pack_a_transposed(a, padded_k<T>(hidden), nullptr, b.rows, hidden, dy + at, k);
    for (index_t p = 0; p < layer.width_panels(); ++p)
      gemm.pack_b(block_act + p * kTile, wide, nullptr, b.rows, kTile,
                  act + p * gemm.panel_size(k) + at * gemm.row);
  }
  // The tokens' rows of x, `rows` of them.
  void pack_x(const Layer<T>& layer, const T* source, const std::int32_t* tokens, index_t rows) {
    const index_t hidden = layer.hidden;
    for (index_t r = 0; r < rows; r += kTile) {
      const index_t count = std::min(kTile, rows - r);
      for (index_t p = 0; p < layer.hidden_panels(); ++p)
        layer.gemm.pack_b(source + p * kTile, hidden, tokens + r, count, std::min(kTile, hidden - p * kTile),
                          x + p * layer.gemm.panel_size(k) + r * layer.gemm.row);
    }
  }
};

// What is left of C's block at row r, column j: its rows and columns, and whether block() can write it in
// place.
struct Extent {
  index_t m, n;
  bool whole;

  Extent(index_t rows, index_t columns, index_t r, index_t j)
      : m(std::min(kTile, rows - r)), n(std::min(kTile, columns - j)), whole(m % 16 == 0 && n == kTile) {}
};

// c [rows, columns] (+)= a [rows to whole tiles, k] * panels, of k only the first `depth`, in the pieces in
// which matmul() sums.
template <class T>
void weight_product(const Layer<T>& layer, const T* a, const T* panels, index_t k, index_t depth,
                    index_t rows, index_t columns, float* c, bool accumulate, TilePipeline<T>& tiles) {
  const index_t per_strip = (columns + kTile - 1) / kTile;
  Workspace::Frame frame(thread_workspace());
  T* const made = frame.take<T>(size(layer.gemm.left_size(k)));
  const index_t piece = layer.gemm.depth;
  // Where sums grow over the pieces: a strip, or `c` itself where they are added to that.
  float* const strip = depth > piece ? frame.take<float>(size(kTile * per_strip * kTile)) : nullptr;
  const auto block = [&](const Left<T>& left, index_t r, index_t j, index_t i) {
    const Extent at(rows, columns, r, j);
    float* const out = c + r * columns + j;
    const T *const rows_of_a = left.at(i), *const panel = panels + j / kTile * layer.gemm.panel_size(k) +
                                                          i * layer.gemm.row;
    const index_t deep = std::min(piece, depth - i);
    if (at.whole && accumulate)
      return tiles.multiply(rows_of_a, left.lda, at.m, panel, deep, out, columns, true);
    TileWork<T> store{.kind = TileWork<T>::Kind::sums,
                      .rows = at.m,
                      .columns = at.n,
                      .past = true,
                      .sums = out,
                      .ld = columns};
    if (strip == nullptr || !at.whole) {  // as matmul() sums blocks that are not whole: piece by piece
      store.accumulate = accumulate || i > 0;
      store.tile = tiles.multiply(rows_of_a, left.lda, at.m, panel, deep);
      return tiles.then(store);
    }
    tiles.multiply(rows_of_a, left.lda, at.m, panel, deep, strip + j, per_strip * kTile, i > 0);
    store.tile = strip + j;
    store.ld_tile = per_strip * kTile;
    if (i + piece >= depth) tiles.then(store);
  };
  // Block j of a strip is about to be begun: its place in C, and its share of the strip of `a` after this
  // one.
  const auto ask_ahead = [&](index_t r, index_t j) {
    float* const out = c + r * columns + j;
    for (index_t i = 0; i < std::min(kTile, rows - r) && accumulate; ++i) {
      __builtin_prefetch(out + i * columns, 1, 3);
      __builtin_prefetch(out + i * columns + 16, 1, 3);
    }
    const index_t of_strip = kTile * k, step = round_up(of_strip * kTile / columns, kLine<T>);
    for (index_t i = j / kTile * step; i < std::min(of_strip, (j / kTile + 1) * step); i += kLine<T>)
      __builtin_prefetch(a + r * k + of_strip + i, 0, 2);
  };
  for (index_t r = 0; r < rows; r += kTile) {
    const Left<T> left = layer.gemm.left(a + r * k, k, std::min(kTile, rows - r), k, made);
    for (index_t i = 0; i < depth; i += piece)
      for (index_t j = 0; j < columns; j += kTile) {
        if (i == 0) ask_ahead(r, j);
        block(left, r, j, i);
      }
    if (strip != nullptr) tiles.finish();  // the next strip's sums take its place
  }
  tiles.finish();
}

template <class T>
void small_weight_gradients(const Layer<T>& layer, Operands<T>& from, const T* x, const ExpertGradients& g,
                            index_t e) {
  const index_t k = from.k, depth = from.depth, hidden = layer.hidden, width = layer.width,
                rows = layer.count(e);
  const std::int32_t* const tokens = layer.rows.token_of.data() + layer.begin(e);
  Workspace::Frame frame(thread_workspace());
  TilePipeline<T> tiles(layer.gemm, layer.vector, frame);
  tiles.ask(x, hidden, tokens, rows, hidden, layer.hidden_panels() * layer.width_panels());
  weight_product(layer, from.dy, from.act, k, depth, hidden, width, g.down[e], g.accumulate, tiles);
  from.pack_x(layer, x, tokens, rows);
  weight_product(layer, from.d_h, from.x, k, depth, width, hidden, g.gate[e], g.accumulate, tiles);
  weight_product(layer, from.d_h + layer.wide * k, from.x, k, depth, width, hidden, g.up[e], g.accumulate,
                 tiles);
}

// The three weight gradients of a big expert, or one without rows.
template <class T>
void big_weight_gradients(const Layer<T>& layer, const Backward<T>& from, const ExpertGradients& g,
                          index_t e) {
  const index_t first = layer.begin(e), rows = layer.count(e), wide = layer.wide;
  if (rows == 0 && g.accumulate) return;
  const std::int32_t* const tokens = layer.rows.token_of.data() + first;
  matmul(layer.isa, Matmul<T>{.m = 2 * wide,
                              .n = layer.hidden,
                              .k = rows,
                              .a = from.d_h + first * 2 * wide,
                              .lda = 2 * wide,
                              .a_transposed = true,
                              .b = from.x,
                              .ldb = layer.hidden,
                              .b_rows = tokens,
                              .c = g.gate[e],
                              .ldc = layer.hidden,
                              .accumulate = g.accumulate,
                              .split = wide,
                              .valid = layer.width,
                              .c_second = g.up[e]});
  matmul(layer.isa, Matmul<T>{.m = layer.hidden,
                              .n = layer.width,
                              .k = rows,
                              .a = from.dy,
                              .lda = layer.hidden,
                              .a_transposed = true,
                              .b = from.act + first * wide,
                              .ldb = wide,
                              .a_rows = tokens,
                              .c = g.down[e],
                              .ldc = layer.width,
                              .accumulate = g.accumulate});
}

template <class T>
void split_kept(const Layer<T>& layer, index_t rows, T* kept, Backward<T>& b) {
  b.d_h = kept;
  b.act = kept + (round_up(rows, kTile) + kTile) * 2 * layer.wide;
}

// Rows that blocks of whole tiles can write.
template <class T>
void take_rows(const Layer<T>& layer, index_t rows, Workspace::Frame& frame, Backward<T>& b) {
  const index_t padded = round_up(rows, kTile) + kTile;
  b.d_h = frame.take<T>(size(padded * 2 * layer.wide));
  b.act = frame.take<T>(size(padded * layer.wide));
}

// A small expert: its intermediate rows never leave the thread's cache.
template <class T>
void small_expert(const Layer<T>& layer, const Part<T>& part, Backward<T> to,
                  const ExpertGradients* gradients) {
  Workspace::Frame frame(thread_workspace());
  const bool fits = layer.fits();
  take_rows(layer, fits ? 0 : part.end - part.begin, frame, to);
  Operands<T> operands(layer, gradients != nullptr ? part.end - part.begin : 0, frame);
  layer.gemm.begin();
  backward_part(
      layer, part, to, [&](index_t r) { return fits ? 0 : r - part.begin; },
      [&](const RowBlock& b, const T* dy, const T* d_h, const T* act) {
        if (gradients != nullptr) operands.add(layer, b, b.first - part.begin, dy, d_h, act);
      });
  if (gradients != nullptr) small_weight_gradients(layer, operands, to.x, *gradients, part.expert);
  layer.gemm.end();
}

}  // namespace

template <class T>
void experts_backward(Isa isa, const ExpertMatrices<T>& weights, const ExpertRows& rows, const T* x,
                      const T* dy, const float* weight, const T* saved, const T* addend, T* dx,
                      float* d_weight, const ExpertGradients* gradients, T* kept) {
  const Layer<T> layer(isa, weights, rows, false);
  Workspace::Frame frame(thread_workspace());
  const bool direct = rows.top_k == 1 && addend == nullptr;
  Backward<T> all{.x = x, .dy = dy, .weight = weight, .saved = saved, .d_weight = d_weight};
  bool any_big = false;
  for (index_t e = 0; e < rows.experts(); ++e) any_big = any_big || layer.is_big(e);
  if (kept != nullptr)
    split_kept(layer, rows.rows(), kept, all);
  else if (any_big)
    take_rows(layer, rows.rows(), frame, all);
  if (dx != nullptr) {
    all.slots = direct ? dx : frame.take<T>(size(rows.tokens * rows.top_k * layer.hidden));
    clear_dropped(layer, all.slots);
  }
  if (d_weight != nullptr && rows.rows() < rows.tokens * rows.top_k)
    std::fill_n(d_weight, rows.tokens * rows.top_k, 0.0F);
  for_expert_rows(layer, [&](const Part<T>& part) {
    if (part.whole && kept == nullptr) return small_expert(layer, part, all, gradients);
    layer.gemm.begin();
    backward_part(
        layer, part, all, [](index_t r) { return r; }, [](const RowBlock&, const T*, const T*, const T*) {});
    layer.gemm.end();
  });
  if (dx != nullptr && !direct) combine(layer, all.slots, addend, dx);
  for (index_t e = 0; e < rows.experts() && gradients != nullptr; ++e)
    if (layer.is_big(e) || layer.count(e) == 0) big_weight_gradients(layer, all, *gradients, e);
}

template <class T>
void experts_weight_gradients(Isa isa, const ExpertMatrices<T>& weights, const ExpertRows& rows, const T* x,
                              const T* dy, const T* kept, const ExpertGradients& gradients) {
  const Layer<T> layer(isa, weights, rows, false);
  Backward<T> all{.x = x, .dy = dy};
  split_kept(layer, rows.rows(), const_cast<T*>(kept), all);  // read only
  // Small experts side by side, each on one thread; big ones on all threads, one after another.
  parallel_for(size(rows.experts()), 1, [&](std::size_t begin, std::size_t end) {
    for (auto e = static_cast<index_t>(begin); e < static_cast<index_t>(end); ++e)
      if (!layer.is_big(e)) big_weight_gradients(layer, all, gradients, e);
  });
  for (index_t e = 0; e < rows.experts(); ++e)
    if (layer.is_big(e)) big_weight_gradients(layer, all, gradients, e);
}

#define SINEW_EXPERTS(T)                                                                                  \
  template void experts_backward<T>(Isa, const ExpertMatrices<T>&, const ExpertRows&, const T*, const T*, \
                                    const float*, const T*, const T*, T*, float*, const ExpertGradients*, \
                                    T*);                                                                  \
  template void experts_weight_gradients<T>(Isa, const ExpertMatrices<T>&, const ExpertRows&, const T*,   \
                                            const T*, const T*, const ExpertGradients&);
SINEW_EXPERTS(float)
SINEW_EXPERTS(bf16)

}  // namespace sinew
