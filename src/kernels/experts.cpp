#include "kernels/experts.hpp"

#include <algorithm>
#include <cstring>

#include "base/threads.hpp"
#include "kernels/matmul.hpp"
#include "kernels/vector.hpp"
#include "kernels/workspace.hpp"

namespace sinew {
namespace {

constexpr index_t kBigRows = 1024;  // above, an expert's rows are shared among the threads ...
constexpr index_t kChunk = 256;     // ... in pieces of this many

std::size_t size(index_t n) { return static_cast<std::size_t>(n); }

// Panels of one expert's three weights, as the direction needs them.
template <class T>
struct Panels {
  T* first = nullptr;   // forward: gate; backward: gate for dx, k = width
  T* second = nullptr;  // up likewise
  T* third = nullptr;   // forward: down, k = width; backward: down for the gradient of act, k = hidden
};

template <class T>
struct Layer {
  Isa isa;
  const ExpertMatrices<T>& weights;
  const ExpertRows& rows;
  const GemmKernels<T>& gemm;
  const VectorKernels<T>& vector;
  bool forward;
  index_t hidden, width, wide;  // wide: padded_width

  Layer(Isa set, const ExpertMatrices<T>& w, const ExpertRows& r, bool is_forward)
      : isa(set),
        weights(w),
        rows(r),
        gemm(gemm_kernels<T>(set)),
        vector(vector_kernels<T>(set)),
        forward(is_forward),
        hidden(w.hidden),
        width(w.width),
        wide(padded_width(w.width)) {}

  index_t hidden_panels() const { return round_up(hidden, kTile) / kTile; }
  index_t width_panels() const { return wide / kTile; }
  index_t begin(index_t e) const { return rows.offsets[size(e)]; }
  index_t count(index_t e) const { return rows.offsets[size(e) + 1] - rows.offsets[size(e)]; }
  // Elements of gate's (or up's) panels and of down's.
  index_t first_size() const {
    return forward ? width_panels() * panel_size<T>(hidden) : hidden_panels() * panel_size<T>(wide);
  }
  index_t third_size() const {
    return forward ? hidden_panels() * panel_size<T>(wide) : width_panels() * panel_size<T>(hidden);
  }
  index_t panels() const {
    return forward ? 2 * width_panels() + hidden_panels() : 2 * hidden_panels() + width_panels();
  }
};

template <class T>
Panels<T> take_panels(const Layer<T>& layer, Workspace::Frame& frame) {
  return {frame.take<T>(size(layer.first_size())), frame.take<T>(size(layer.first_size())),
          frame.take<T>(size(layer.third_size()))};
}

// Panel i of the layer.panels() of expert e. Padding of width beyond padded_k(width) is written as well: the
// panels have `wide` rows, and rows that the packing does not reach are zero.
template <class T>
void pack_panel(const Layer<T>& layer, index_t e, const Panels<T>& out, index_t i) {
  const index_t first = layer.forward ? layer.width_panels() : layer.hidden_panels();
  const index_t which = std::min<index_t>(i / first, 2), column = (i - which * first) * kTile;
  const T* const gate_or_up = (which == 0 ? layer.weights.gate : layer.weights.up)[e];
  T* const panels = which == 0 ? out.first : which == 1 ? out.second : out.third;
  const bool deep = (which < 2) == layer.forward;  // k = hidden
  T* const panel = panels + column / kTile * panel_size<T>(deep ? layer.hidden : layer.wide);
  if (!deep) {
    const index_t written = panel_size<T>(layer.width);
    std::memset(static_cast<void*>(panel + written), 0,
                size(panel_size<T>(layer.wide) - written) * sizeof(T));
  }
  const index_t hidden_left = std::min(kTile, layer.hidden - column),
                width_left = std::min(kTile, layer.width - column);
  if (which < 2 && layer.forward)
    layer.gemm.pack_b_transposed(gate_or_up + column * layer.hidden, layer.hidden, width_left, layer.hidden,
                                 panel);
  else if (which < 2)
    layer.gemm.pack_b(gate_or_up + column, layer.hidden, nullptr, layer.width, hidden_left, panel);
  else if (layer.forward)
    layer.gemm.pack_b_transposed(layer.weights.down[e] + column * layer.width, layer.width, hidden_left,
                                 layer.width, panel);
  else
    layer.gemm.pack_b(layer.weights.down[e] + column, layer.width, nullptr, layer.hidden, width_left, panel);
}

// The tokens' rows of one block, side by side, k padded with zeros.
template <class T>
void gather(const T* source, index_t ld, const std::int32_t* index, index_t rows, T* out) {
  const index_t wide = padded_k<T>(ld);
  for (index_t r = 0; r < rows; ++r) {
    std::memcpy(out + r * wide, source + index[r] * ld, size(ld) * sizeof(T));
    if (wide > ld) std::memset(static_cast<void*>(out + r * wide + ld), 0, size(wide - ld) * sizeof(T));
  }
}

// Rows that are about to be written at places only the router knows.
template <class T>
void prefetch_rows(const T* base, index_t ld, const std::int32_t* index, index_t rows) {
  constexpr index_t kLine = 64 / sizeof(T);
  for (index_t r = 0; r < rows; ++r)
    for (index_t i = 0; i < ld; i += kLine) __builtin_prefetch(base + index[r] * ld + i, 1, 2);
}

// One block of rows: what block() gets is never read beyond 32 rows.
struct RowBlock {
  index_t first, rows;  // in the sorted order
  const std::int32_t* slots;
  const std::int32_t* tokens;
  float weight[kTile];
  const float* weights;  // `weight`, or null
};

RowBlock row_block(const ExpertRows& rows, index_t first, index_t end, const float* weight) {
  RowBlock b{.first = first,
             .rows = std::min(kTile, end - first),
             .slots = rows.slots.data() + first,
             .tokens = rows.token_of.data() + first,
             .weight = {},
             .weights = nullptr};
  for (index_t r = 0; r < b.rows && weight != nullptr; ++r) b.weight[r] = weight[b.slots[r]];
  if (weight != nullptr) b.weights = b.weight;
  return b;
}

// Calls body(expert, panels, first row, end, whole) so that all rows of all experts are covered. A small
// expert is one task that packs its weights for itself (they stay in the thread's cache); the weights of big
// ones are packed by all threads first.
template <class T, class Body>
void for_expert_rows(const Layer<T>& layer, const Body& body) {
  struct Task {
    index_t expert, begin, end;
    const Panels<T>* panels;
  };
  Workspace::Frame frame(thread_workspace());
  const index_t experts = layer.rows.experts();
  index_t tasks = 0, big = 0;
  for (index_t e = 0; e < experts; ++e) {
    tasks += layer.count(e) > kBigRows ? (layer.count(e) + kChunk - 1) / kChunk : layer.count(e) > 0;
    big += layer.count(e) > kBigRows;
  }
  Task* const list = frame.take<Task>(size(tasks));
  Panels<T>* const shared = frame.take<Panels<T>>(size(big));
  index_t* const big_expert = frame.take<index_t>(size(big));
  tasks = big = 0;
  for (index_t e = 0; e < experts; ++e) {
    const index_t begin = layer.begin(e), end = begin + layer.count(e);
    if (layer.count(e) <= kBigRows) {
      if (begin < end) list[tasks++] = {e, begin, end, nullptr};
      continue;
    }
    shared[big] = take_panels(layer, frame);
    for (index_t r = begin; r < end; r += kChunk)
      list[tasks++] = {e, r, std::min(end, r + kChunk), shared + big};
    big_expert[big++] = e;
  }
  parallel_for(size(big * layer.panels()), 4, [&](std::size_t begin, std::size_t end) {
    for (auto i = static_cast<index_t>(begin); i < static_cast<index_t>(end); ++i)
      pack_panel(layer, big_expert[i / layer.panels()], shared[i / layer.panels()], i % layer.panels());
  });
  parallel_for(size(tasks), 1, [&](std::size_t first, std::size_t last) {
    for (std::size_t i = first; i < last; ++i) {
      Workspace::Frame own(thread_workspace());
      const Task& task = list[i];
      Panels<T> panels;
      if (task.panels != nullptr) {
        panels = *task.panels;
      } else {
        panels = take_panels(layer, own);
        for (index_t p = 0; p < layer.panels(); ++p) pack_panel(layer, task.expert, panels, p);
      }
      body(task.expert, panels, task.begin, task.end, task.panels == nullptr);
    }
  });
}

// out [tokens] = addend + the sum of each token's slots.
template <class T>
void combine(const Layer<T>& layer, const T* slots, const T* addend, T* out) {
  const index_t hidden = layer.hidden, top_k = layer.rows.top_k;
  parallel_for(size(layer.rows.tokens), 64, [&](std::size_t begin, std::size_t end) {
    for (auto t = static_cast<index_t>(begin); t < static_cast<index_t>(end); ++t)
      layer.vector.sum_rows(slots + t * top_k * hidden, hidden, top_k,
                            addend != nullptr ? addend + t * hidden : nullptr, hidden, out + t * hidden);
  });
}

// Slots that no expert fills count as zero.
template <class T>
void clear_dropped(const Layer<T>& layer, T* slots) {
  const ExpertRows& rows = layer.rows;
  if (rows.rows() < rows.tokens * rows.top_k)
    std::memset(static_cast<void*>(slots), 0, size(rows.tokens * rows.top_k * layer.hidden) * sizeof(T));
}

template <class T>
void forward_block(const Layer<T>& layer, const Panels<T>& panels, const RowBlock& b, const T* a, T* act,
                   T* saved, T* slots) {
  alignas(64) float gate[kTile * kTile], up[kTile * kTile];
  prefetch_rows(slots, layer.hidden, b.slots, b.rows);
  const index_t k = padded_k<T>(layer.hidden), wide = layer.wide;
  for (index_t p = 0; p < layer.width_panels(); ++p) {
    layer.gemm.block(a, k, b.rows, panels.first + p * panel_size<T>(k), k, gate, kTile, false);
    layer.gemm.block(a, k, b.rows, panels.second + p * panel_size<T>(k), k, up, kTile, false);
    T* const h = saved + p * kTile;
    layer.vector.swiglu_forward(gate, up, b.rows, kTile, h, h + wide, 2 * wide, act + p * kTile, wide);
  }
  for (index_t p = 0; p < layer.hidden_panels(); ++p) {
    layer.gemm.block(act, wide, b.rows, panels.third + p * panel_size<T>(wide), wide, gate, kTile, false);
    layer.vector.scatter(gate, b.rows, std::min(kTile, layer.hidden - p * kTile), b.slots, b.weights,
                         slots + p * kTile, layer.hidden);
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
  for_expert_rows(layer, [&](index_t, const Panels<T>& panels, index_t begin, index_t end, bool) {
    Workspace::Frame own(thread_workspace());
    T* const a = own.take<T>(size(kTile * padded_k<T>(layer.hidden)));
    T* const act = own.take<T>(size(kTile * layer.wide));
    T* const scrap = saved == nullptr ? own.take<T>(size(expert_saved_size(weights, kTile))) : nullptr;
    layer.gemm.begin();
    for (index_t r = begin; r < end; r += kTile) {
      const RowBlock b = row_block(rows, r, end, weight);
      gather(x, layer.hidden, b.tokens, b.rows, a);
      forward_block(layer, panels, b, a, act,
                    saved == nullptr ? scrap : saved + expert_saved_size(weights, r), slots);
    }
    layer.gemm.end();
  });
  if (!direct) combine(layer, slots, addend, y);
}

namespace {

template <class T>
struct Backward {
  const T* dy;
  const float* weight;
  const T* saved;
  index_t first;  // the first row that d_h and act hold
  T* d_h;         // [rows, 2 * wide]: gradients of the gate and up products
  T* act;         // [rows, wide]: weighted activations
  T* slots;       // [tokens * top_k, hidden]: gradients of x by slot; null: not wanted
  float* d_weight;
};

template <class T>
void backward_block(const Layer<T>& layer, const Panels<T>& panels, const RowBlock& b, const Backward<T>& to,
                    const T* dy) {
  alignas(64) float tile[kTile * kTile];
  float dot[kTile] = {};
  if (to.slots != nullptr) prefetch_rows(to.slots, layer.hidden, b.slots, b.rows);
  const index_t k = padded_k<T>(layer.hidden), wide = layer.wide;
  const T* const h = to.saved + b.first * 2 * wide;
  T* const d_h = to.d_h + (b.first - to.first) * 2 * wide;
  for (index_t p = 0; p < layer.width_panels(); ++p) {
    const index_t c = p * kTile;
    layer.gemm.block(dy, k, b.rows, panels.third + p * panel_size<T>(k), k, tile, kTile, false);
    layer.vector.swiglu_backward(tile, b.rows, kTile, h + c, h + wide + c, 2 * wide, b.weights, dot, d_h + c,
                                 d_h + wide + c, 2 * wide, to.act + (b.first - to.first) * wide + c, wide);
  }
  if (to.d_weight != nullptr)
    for (index_t r = 0; r < b.rows; ++r) to.d_weight[b.slots[r]] = dot[r];
  for (index_t p = 0; p < layer.hidden_panels() && to.slots != nullptr; ++p) {
    const index_t at = p * panel_size<T>(wide);
    layer.gemm.block(d_h, 2 * wide, b.rows, panels.first + at, wide, tile, kTile, false);
    layer.gemm.block(d_h + wide, 2 * wide, b.rows, panels.second + at, wide, tile, kTile, true);
    layer.vector.scatter(tile, b.rows, std::min(kTile, layer.hidden - p * kTile), b.slots, nullptr,
                         to.slots + p * kTile, layer.hidden);
  }
}

// The three weight gradients of expert e: sums over its rows in pieces of kDepth, from the first row on.
template <class T>
void weight_gradients(const Layer<T>& layer, const Backward<T>& from, const T* x, const ExpertGradients& g,
                      index_t e) {
  const index_t first = layer.begin(e), rows = layer.count(e), wide = layer.wide;
  if (rows == 0 && g.accumulate) return;
  const std::int32_t* const tokens = layer.rows.token_of.data() + first;
  const T* const d_h = from.d_h + (first - from.first) * 2 * wide;
  const T* const act = from.act + (first - from.first) * wide;
  matmul(layer.isa, Matmul<T>{.m = 2 * wide,
                              .n = layer.hidden,
                              .k = rows,
                              .a = d_h,
                              .lda = 2 * wide,
                              .a_transposed = true,
                              .b = x,
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
                              .b = act,
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

template <class T>
void take_rows(const Layer<T>& layer, index_t rows, Workspace::Frame& frame, Backward<T>& b) {
  const index_t padded = round_up(rows, kTile) + kTile;  // blocks read whole tiles of rows
  b.d_h = frame.take<T>(size(padded * 2 * layer.wide));
  b.act = frame.take<T>(size(padded * layer.wide));
}

}  // namespace

template <class T>
void experts_backward(Isa isa, const ExpertMatrices<T>& weights, const ExpertRows& rows, const T* x,
                      const T* dy, const float* weight, const T* saved, const T* addend, T* dx,
                      float* d_weight, const ExpertGradients* gradients, T* kept) {
  const Layer<T> layer(isa, weights, rows, false);
  Workspace::Frame frame(thread_workspace());
  const bool direct = rows.top_k == 1 && addend == nullptr;
  Backward<T> all{.dy = dy,
                  .weight = weight,
                  .saved = saved,
                  .first = 0,
                  .d_h = nullptr,
                  .act = nullptr,
                  .slots = nullptr,
                  .d_weight = d_weight};
  bool any_big = false;
  for (index_t e = 0; e < rows.experts(); ++e) any_big = any_big || layer.count(e) > kBigRows;
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
  for_expert_rows(layer, [&](index_t e, const Panels<T>& panels, index_t begin, index_t end, bool whole) {
    Workspace::Frame own(thread_workspace());
    T* const a = own.take<T>(size(kTile * padded_k<T>(layer.hidden)));
    Backward<T> b = all;
    if (whole && kept == nullptr) {  // a small expert's intermediate rows never leave the thread's cache
      take_rows(layer, end - begin, own, b);
      b.first = begin;
    }
    layer.gemm.begin();
    for (index_t r = begin; r < end; r += kTile) {
      const RowBlock block = row_block(rows, r, end, weight);
      gather(dy, layer.hidden, block.tokens, block.rows, a);
      backward_block(layer, panels, block, b, a);
    }
    layer.gemm.end();
    if (whole && gradients != nullptr) weight_gradients(layer, b, x, *gradients, e);
  });
  if (dx != nullptr && !direct) combine(layer, all.slots, addend, dx);
  for (index_t e = 0; e < rows.experts() && gradients != nullptr; ++e)
    if (layer.count(e) > kBigRows || layer.count(e) == 0) weight_gradients(layer, all, x, *gradients, e);
}

template <class T>
void experts_weight_gradients(Isa isa, const ExpertMatrices<T>& weights, const ExpertRows& rows, const T* x,
                              const T* dy, const T* kept, const ExpertGradients& gradients) {
  const Layer<T> layer(isa, weights, rows, false);
  Backward<T> all{.dy = dy,
                  .weight = nullptr,
                  .saved = nullptr,
                  .first = 0,
                  .d_h = nullptr,
                  .act = nullptr,
                  .slots = nullptr,
                  .d_weight = nullptr};
  split_kept(layer, rows.rows(), const_cast<T*>(kept), all);  // read only
  // Small experts side by side, each on one thread; big ones on all threads, one after another.
  parallel_for(size(rows.experts()), 1, [&](std::size_t begin, std::size_t end) {
    for (auto e = static_cast<index_t>(begin); e < static_cast<index_t>(end); ++e)
      if (layer.count(e) <= kBigRows) weight_gradients(layer, all, x, gradients, e);
  });
  for (index_t e = 0; e < rows.experts(); ++e)
    if (layer.count(e) > kBigRows) weight_gradients(layer, all, x, gradients, e);
}

#define SINEW_EXPERTS(T)                                                                                     \
  template void experts_forward<T>(Isa, const ExpertMatrices<T>&, const ExpertRows&, const T*, const float*, \
                                   const T*, T*, T*);                                                        \
  template void experts_backward<T>(Isa, const ExpertMatrices<T>&, const ExpertRows&, const T*, const T*,    \
                                    const float*, const T*, const T*, T*, float*, const ExpertGradients*,    \
                                    T*);                                                                     \
  template void experts_weight_gradients<T>(Isa, const ExpertMatrices<T>&, const ExpertRows&, const T*,      \
                                            const T*, const T*, const ExpertGradients&);
SINEW_EXPERTS(float)
SINEW_EXPERTS(bf16)

}  // namespace sinew
