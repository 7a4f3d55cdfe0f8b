#include "kernels/experts.hpp"

#include <algorithm>
#include <cstring>

#include "base/threads.hpp"
#include "kernels/matmul.hpp"
#include "kernels/vector.hpp"
#include "kernels/workspace.hpp"

namespace sinew {
namespace {

constexpr index_t kBigRows = 1024;          // above, an expert's rows are shared among the threads ...
constexpr index_t kChunk = 256;             // ... in pieces of this many
constexpr index_t kFitBytes = 1280 << 10;   // of panels that a cache holds beside the rows they meet
constexpr index_t kPanelBytes = 384 << 10;  // of panels that all rows of such a piece go over in turn

std::size_t size(index_t n) { return static_cast<std::size_t>(n); }

// Panels of one expert's three weights, as the direction needs them.
template <class T>
struct Panels {
  T* first = nullptr;   // forward: gate; backward: gate above up, for dx: k = 2 * wide
  T* second = nullptr;  // forward: up
  T* third = nullptr;   // forward: down, k = width; backward: down for the gradient of act, k = hidden
};

template <class T>
struct Layer {
  Isa isa;
  const ExpertMatrices<T>& weights;
  const ExpertRows& rows;
  const GemmKernels<T>& gemm;
  const VectorKernels<T>& vector;
  bool forward, past;           // past: results a row are so many that they go past the caches
  index_t hidden, width, wide;  // wide: padded_width

  Layer(Isa set, const ExpertMatrices<T>& w, const ExpertRows& r, bool is_forward)
      : isa(set),
        weights(w),
        rows(r),
        gemm(gemm_kernels<T>(set)),
        vector(vector_kernels<T>(set)),
        forward(is_forward),
        past(r.rows() * w.hidden * static_cast<index_t>(sizeof(T)) >= kPastCaches),
        hidden(w.hidden),
        width(w.width),
        wide(padded_width(w.width)) {}

  // Whether one expert's panels stay in the cache while its rows go by.
  bool fits() const {
    const index_t all = (forward ? 2 : 1) * first_size() + third_size();
    return all * static_cast<index_t>(sizeof(T)) <= kFitBytes;
  }
  index_t hidden_panels() const { return round_up(hidden, kTile) / kTile; }
  index_t width_panels() const { return wide / kTile; }
  index_t begin(index_t e) const { return rows.offsets[size(e)]; }
  index_t count(index_t e) const { return rows.offsets[size(e) + 1] - rows.offsets[size(e)]; }
  // Elements of a Panels' first and third.
  index_t first_size() const {
    return forward ? width_panels() * panel_size<T>(hidden) : hidden_panels() * panel_size<T>(2 * wide);
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
  return {frame.take<T>(size(layer.first_size())),
          layer.forward ? frame.take<T>(size(layer.first_size())) : nullptr,
          frame.take<T>(size(layer.third_size()))};
}

// Panel i of the layer.panels() of expert e: rows [k0, k1) of it, k0 a multiple of kTile. Padding of width
// beyond padded_k(width) is written with the last rows: the panels have `wide` rows, those that packing does
// not reach are zero.
template <class T>
void pack_panel(const Layer<T>& layer, index_t e, const Panels<T>& out, index_t i, index_t k0, index_t k1) {
  const index_t first = layer.forward ? layer.width_panels() : layer.hidden_panels();
  const index_t which = std::min<index_t>(i / first, 2), column = (i - which * first) * kTile;
  const T* const gate_or_up = (which == 0 ? layer.weights.gate : layer.weights.up)[e];
  const bool deep = (which < 2) == layer.forward;  // k = hidden
  T* panel = nullptr;
  if (which == 2)
    panel = out.third + column * padded_k<T>(deep ? layer.hidden : layer.wide);
  else if (layer.forward)
    panel = (which == 0 ? out.first : out.second) + column * padded_k<T>(layer.hidden);
  else
    panel = out.first + column * 2 * layer.wide + which * panel_size<T>(layer.wide);
  const index_t k = deep ? layer.hidden : layer.width;
  if (k0 >= k) return;
  k1 = std::min(k, k1);
  if (!deep && k1 == k) {
    const index_t written = panel_size<T>(layer.width);
    std::memset(static_cast<void*>(panel + written), 0,
                size(panel_size<T>(layer.wide) - written) * sizeof(T));
  }
  const index_t hidden_left = std::min(kTile, layer.hidden - column),
                width_left = std::min(kTile, layer.width - column), hidden = layer.hidden,
                width = layer.width;
  T* const at = panel + k0 * kTile;
  if (which < 2 && layer.forward)
    layer.gemm.pack_b_transposed(gate_or_up + column * hidden + k0, hidden, width_left, k1 - k0, at);
  else if (which < 2)
    layer.gemm.pack_b(gate_or_up + k0 * hidden + column, hidden, nullptr, k1 - k0, hidden_left, at);
  else if (layer.forward)
    layer.gemm.pack_b_transposed(layer.weights.down[e] + column * width + k0, width, hidden_left, k1 - k0,
                                 at);
  else
    layer.gemm.pack_b(layer.weights.down[e] + k0 * width + column, width, nullptr, k1 - k0, width_left, at);
}
template <class T>
void pack_panel(const Layer<T>& layer, index_t e, const Panels<T>& out, index_t i) {
  pack_panel(layer, e, out, i, 0, std::max(layer.hidden, layer.width));
}

// All panels of expert e. Backward they are made of the columns of rows: a few rows at a time, so that memory
// is read as it lies.
template <class T>
void pack_expert(const Layer<T>& layer, index_t e, const Panels<T>& out) {
  const index_t most = std::max(layer.hidden, layer.width), step = layer.forward ? most : kTile;
  const index_t first = layer.forward ? layer.width_panels() : layer.hidden_panels();
  for (index_t which = 0; which < 3; ++which) {
    const index_t begin = which * first, end = which == 2 ? layer.panels() : begin + first;
    for (index_t k = 0; k < most; k += step)
      for (index_t i = begin; i < end; ++i) pack_panel(layer, e, out, i, k, k + step);
  }
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

template <class T>
constexpr index_t kLine = 64 / static_cast<index_t>(sizeof(T));

// Rows at places only the router knows are asked for before they are needed, a few at each product.
template <class T>
void prefetch_row(const T* base, index_t ld, index_t row) {
  for (index_t i = 0; i < ld; i += kLine<T>) __builtin_prefetch(base + row * ld + i, 0, 2);
}
// Columns [column, column + kTile) of rows that are about to be written.
template <class T>
void prefetch_columns(const T* base, index_t ld, index_t column, const std::int32_t* index, index_t rows) {
  if (column >= ld) return;
  for (index_t r = 0; r < rows; ++r)
    for (index_t i = 0; i < kTile; i += kLine<T>) __builtin_prefetch(base + index[r] * ld + column + i, 1, 3);
}
// The share of step `i` of `steps` in asking for the rows of the next block of `source`.
template <class T>
void prefetch_next(const T* source, index_t ld, const std::int32_t* next, index_t rows, index_t i,
                   index_t steps) {
  for (index_t r = i * rows / steps; r < (i + 1) * rows / steps; ++r) prefetch_row(source, ld, next[r]);
}

// One block of rows: what block() gets is never read beyond 32 rows.
struct RowBlock {
  index_t first, rows;  // in the sorted order
  const std::int32_t* slots;
  const std::int32_t* tokens;
  index_t next;  // rows of the block after this one; their tokens follow
  float weight[kTile];
  const float* weights;  // `weight`, or null
};

RowBlock row_block(const ExpertRows& rows, index_t first, index_t end, const float* weight) {
  RowBlock b{.first = first,
             .rows = std::min(kTile, end - first),
             .slots = rows.slots.data() + first,
             .tokens = rows.token_of.data() + first,
             .next = std::clamp(end - first - kTile, index_t{0}, kTile),
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
        pack_expert(layer, task.expert, panels);
      }
      body(task.expert, panels, task.begin, task.end, task.panels == nullptr);
      publish();
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

// Kept gate and up products: block by block of rows, in it panel by panel, [gate | up] of [rows, 32]: written
// and read as one stream.
template <class T>
T* saved_tile(T* block, index_t rows, index_t panel) {
  return block + panel * 2 * rows * kTile;
}

// Gate and up products of one block, their panels [p0, p1); act [32, wide].
template <class T>
void gate_and_up(const Layer<T>& layer, const Panels<T>& panels, const RowBlock& b, const T* x, const T* a,
                 T* act, T* saved, index_t p0, index_t p1) {
  alignas(64) float gate[kTile * kTile], up[kTile * kTile];
  const index_t k = padded_k<T>(layer.hidden);
  for (index_t p = p0; p < p1; ++p) {
    layer.gemm.block(a, k, b.rows, panels.first + p * panel_size<T>(k), k, gate, kTile, false);
    prefetch_next(x, layer.hidden, b.tokens + b.rows, b.next, p, layer.width_panels());
    layer.gemm.block(a, k, b.rows, panels.second + p * panel_size<T>(k), k, up, kTile, false);
    T* const h = saved_tile(saved, b.rows, p);
    layer.vector.swiglu_forward(gate, up, b.rows, kTile, h, h + b.rows * kTile, kTile, act + p * kTile,
                                layer.wide, layer.past);
  }
}

// The down product of one block, its panels [p0, p1).
template <class T>
void down(const Layer<T>& layer, const Panels<T>& panels, const RowBlock& b, const T* act, T* slots,
          index_t p0, index_t p1) {
  alignas(64) float tile[kTile * kTile];
  const index_t wide = layer.wide, hidden = layer.hidden;
  if (!layer.past) prefetch_columns(slots, hidden, p0 * kTile, b.slots, b.rows);
  for (index_t p = p0; p < p1; ++p) {
    if (!layer.past) prefetch_columns(slots, hidden, (p + 1) * kTile, b.slots, b.rows);
    layer.gemm.block(act, wide, b.rows, panels.third + p * panel_size<T>(wide), wide, tile, kTile, false);
    layer.vector.scatter(tile, b.rows, std::min(kTile, hidden - p * kTile), b.slots, b.weights,
                         slots + p * kTile, hidden, layer.past);
  }
}

// body(first panel, end) over groups of `all` panels, each of rows k, that a cache holds beside the rows.
// `sets`: how many sets of panels the body goes over.
template <class T, class Body>
void each_group(index_t all, index_t k, index_t sets, const Body& body) {
  const index_t bytes = sets * panel_size<T>(k) * static_cast<index_t>(sizeof(T));
  const index_t group = std::max<index_t>(1, kPanelBytes / std::max<index_t>(1, bytes));
  for (index_t p = 0; p < all; p += group) body(p, std::min(all, p + group));
}

// body(block) over rows [begin, end), whose other operands are at hand.
template <class T, class Body>
void each_block(const Layer<T>& layer, index_t begin, index_t end, const float* weight, const Body& body) {
  for (index_t r = begin; r < end; r += kTile) {
    RowBlock b = row_block(layer.rows, r, end, weight);
    b.next = 0;
    body(b);
  }
}

// What forward takes and fills.
template <class T>
struct Forward {
  const T* x;
  const float* weight;
  T* saved;  // or null
  T* slots;
};

// Block by block of rows: all panels stay in the cache.
template <class T>
void forward_small(const Layer<T>& layer, const Panels<T>& panels, const Forward<T>& to, index_t begin,
                   index_t end) {
  Workspace::Frame own(thread_workspace());
  T* const a = own.take<T>(size(kTile * padded_k<T>(layer.hidden)));
  T* const act = own.take<T>(size(kTile * layer.wide));
  T* const scrap = to.saved == nullptr ? own.take<T>(size(expert_saved_size(layer.weights, kTile))) : nullptr;
  for (index_t r = begin; r < end; r += kTile) {
    const RowBlock b = row_block(layer.rows, r, end, to.weight);
    T* const saved = to.saved == nullptr ? scrap : to.saved + expert_saved_size(layer.weights, r);
    gather(to.x, layer.hidden, b.tokens, b.rows, a);
    gate_and_up(layer, panels, b, to.x, a, act, saved, 0, layer.width_panels());
    down(layer, panels, b, act, to.slots, 0, layer.hidden_panels());
  }
}

// Group by group of panels, all rows for each: neither all rows nor all panels are read again from memory for
// each block of the other.
template <class T>
void forward_big(const Layer<T>& layer, const Panels<T>& panels, const Forward<T>& to, index_t begin,
                 index_t end) {
  Workspace::Frame own(thread_workspace());
  const index_t k = padded_k<T>(layer.hidden), rows = round_up(end - begin, kTile);
  T* const a = own.take<T>(size(rows * k));
  T* const act = own.take<T>(size(rows * layer.wide));
  T* const scrap = to.saved == nullptr ? own.take<T>(size(expert_saved_size(layer.weights, kTile))) : nullptr;
  each_block(layer, begin, end, to.weight, [&](const RowBlock& b) {
    gather(to.x, layer.hidden, b.tokens, b.rows, a + (b.first - begin) * k);
  });
  each_group<T>(layer.width_panels(), layer.hidden, 2, [&](index_t p0, index_t p1) {
    each_block(layer, begin, end, to.weight, [&](const RowBlock& b) {
      T* const saved = to.saved == nullptr ? scrap : to.saved + expert_saved_size(layer.weights, b.first);
      gate_and_up(layer, panels, b, to.x, a + (b.first - begin) * k, act + (b.first - begin) * layer.wide,
                  saved, p0, p1);
    });
  });
  each_group<T>(layer.hidden_panels(), layer.wide, 1, [&](index_t p0, index_t p1) {
    each_block(layer, begin, end, to.weight, [&](const RowBlock& b) {
      down(layer, panels, b, act + (b.first - begin) * layer.wide, to.slots, p0, p1);
    });
  });
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
  for_expert_rows(layer, [&](index_t, const Panels<T>& panels, index_t begin, index_t end, bool whole) {
    layer.gemm.begin();
    if (whole || layer.fits())
      forward_small(layer, panels, to, begin, end);
    else
      forward_big(layer, panels, to, begin, end);
    layer.gemm.end();
  });
  if (!direct) combine(layer, slots, addend, y);
}

namespace {

template <class T>
struct Backward {
  const T* x;
  const T* dy;
  const float* weight;
  const T* saved;
  T* d_h;    // [rows, 2 * wide]: gradients of the gate and up products
  T* act;    // [rows, wide]: weighted activations
  T* slots;  // [tokens * top_k, hidden]: gradients of x by slot; null: not wanted
  float* d_weight;
};

// `a`: the block's rows of dy; d_h and act: where its rows go.
template <class T>
void backward_block(const Layer<T>& layer, const Panels<T>& panels, const RowBlock& b, const Backward<T>& to,
                    const T* a, T* d_h, T* act) {
  alignas(64) float tile[kTile * kTile];
  float dot[kTile] = {};
  const index_t k = padded_k<T>(layer.hidden), wide = layer.wide, hidden = layer.hidden;
  const T* const saved = to.saved + b.first * 2 * wide;
  for (index_t p = 0; p < layer.width_panels(); ++p) {
    const index_t c = p * kTile;
    layer.gemm.block(a, k, b.rows, panels.third + p * panel_size<T>(k), k, tile, kTile, false);
    const T* const h = saved_tile(saved, b.rows, p);
    for (index_t i = 0; i < 2 * b.rows * kTile; i += kLine<T>)  // the next tile
      __builtin_prefetch(h + 2 * b.rows * kTile + i, 0, 2);
    layer.vector.swiglu_backward(tile, b.rows, kTile, h, h + b.rows * kTile, kTile, b.weights, dot, d_h + c,
                                 d_h + wide + c, 2 * wide, act + c, wide);
  }
  if (to.d_weight != nullptr)
    for (index_t r = 0; r < b.rows; ++r) to.d_weight[b.slots[r]] = dot[r];
  if (to.slots == nullptr) return;
  if (!layer.past) prefetch_columns(to.slots, hidden, 0, b.slots, b.rows);
  for (index_t p = 0; p < layer.hidden_panels(); ++p) {
    if (!layer.past) prefetch_columns(to.slots, hidden, (p + 1) * kTile, b.slots, b.rows);
    prefetch_next(to.dy, hidden, b.tokens + b.rows, b.next, p, layer.hidden_panels());
    layer.gemm.block(d_h, 2 * wide, b.rows, panels.first + p * panel_size<T>(2 * wide), 2 * wide, tile, kTile,
                     false);
    layer.vector.scatter(tile, b.rows, std::min(kTile, hidden - p * kTile), b.slots, nullptr,
                         to.slots + p * kTile, hidden, layer.past);
  }
}

// The operands of one expert's weight gradients, packed block by block while its rows are in the cache.
template <class T>
struct Operands {
  index_t k = 0;  // rows, padded
  T* d_h;         // [2 * wide, k]
  T* dy;          // [hidden to whole tiles, k]
  T* x;           // panels of 32 columns of hidden
  T* act;         // panels of 32 columns of width

  // x takes dy's place when that has been used.
  Operands(const Layer<T>& layer, index_t rows, Workspace::Frame& frame)
      : k(padded_k<T>(rows)),
        d_h(frame.take<T>(size(2 * layer.wide * k))),
        dy(frame.take<T>(size(layer.hidden_panels() * kTile * k))),
        x(dy),
        act(frame.take<T>(size(layer.width_panels() * panel_size<T>(k)))) {}

  void add(const Layer<T>& layer, const RowBlock& b, index_t at, const T* a, const T* block_d_h,
           const T* block_act) {
    const index_t hidden = layer.hidden, wide = layer.wide;
    const GemmKernels<T>& gemm = layer.gemm;
    gemm.pack_a_transposed(block_d_h, 2 * wide, nullptr, b.rows, 2 * wide, d_h + at, k);
    gemm.pack_a_transposed(a, padded_k<T>(hidden), nullptr, b.rows, hidden, dy + at, k);
    for (index_t p = 0; p < layer.width_panels(); ++p)
      gemm.pack_b(block_act + p * kTile, wide, nullptr, b.rows, kTile,
                  act + p * panel_size<T>(k) + at * kTile);
  }
  // The tokens' rows of x, `rows` of them.
  void pack_x(const Layer<T>& layer, const T* source, const std::int32_t* tokens, index_t rows) {
    const index_t hidden = layer.hidden;
    for (index_t r = 0; r < rows; r += kTile) {
      const index_t count = std::min(kTile, rows - r);
      for (index_t p = 0; p < layer.hidden_panels(); ++p)
        layer.gemm.pack_b(source + p * kTile, hidden, tokens + r, count, std::min(kTile, hidden - p * kTile),
                          x + p * panel_size<T>(k) + r * kTile);
    }
  }
};

// c [rows, columns] (+)= a [rows to whole tiles, k] * panels. between(i, n): before product i of n.
template <class T, class Between>
void weight_product(const Layer<T>& layer, const T* a, const T* panels, index_t k, index_t rows,
                    index_t columns, float* c, bool accumulate, const Between& between) {
  const index_t per_strip = (columns + kTile - 1) / kTile, products = (rows + kTile - 1) / kTile * per_strip;
  alignas(64) float tile[kTile * kTile];
  const VectorKernels<float>& vector = vector_kernels<float>(layer.isa);
  for (index_t r = 0; r < rows; r += kTile)
    for (index_t j = 0; j < columns; j += kTile) {
      const index_t m = std::min(kTile, rows - r), n = std::min(kTile, columns - j);
      const bool whole = m % 16 == 0 && n == kTile;
      float* const out = c + r * columns + j;
      for (index_t i = 0; i < m && accumulate; ++i) {
        __builtin_prefetch(out + i * columns, 1, 3);
        __builtin_prefetch(out + i * columns + 16, 1, 3);
      }
      between(r / kTile * per_strip + j / kTile, products);
      const index_t strip = kTile * k,
                    step = round_up(strip * kTile / columns, kLine<T>);  // of the next rows
      for (index_t i = j / kTile * step; i < std::min(strip, (j / kTile + 1) * step); i += kLine<T>)
        __builtin_prefetch(a + r * k + strip + i, 0, 2);
      const T* const panel = panels + j / kTile * panel_size<T>(k);
      if (whole && accumulate) {
        layer.gemm.block(a + r * k, k, m, panel, k, out, columns, true);
        continue;
      }
      for (index_t i = 0; i < k; i += kDepth) {  // rounded as matmul() rounds
        const bool more = accumulate || i > 0;
        layer.gemm.block(a + r * k + i, k, m, panel + i * kTile, std::min(kDepth, k - i), tile, kTile,
                         whole && more);
        if (!whole) vector.store(tile, kTile, m, n, out, columns, 1.0F, more);
      }
      if (whole) vector.store_past(tile, kTile, m, n, out, columns);
    }
}

template <class T>
void small_weight_gradients(const Layer<T>& layer, Operands<T>& from, const T* x, const ExpertGradients& g,
                            index_t e) {
  const index_t k = from.k, hidden = layer.hidden, width = layer.width, rows = layer.count(e);
  const std::int32_t* const tokens = layer.rows.token_of.data() + layer.begin(e);
  weight_product(layer, from.dy, from.act, k, hidden, width, g.down[e], g.accumulate,
                 [&](index_t i, index_t of) { prefetch_next(x, hidden, tokens, rows, i, of); });
  from.pack_x(layer, x, tokens, rows);
  const auto nothing = [](index_t, index_t) {};
  weight_product(layer, from.d_h, from.x, k, width, hidden, g.gate[e], g.accumulate, nothing);
  weight_product(layer, from.d_h + layer.wide * k, from.x, k, width, hidden, g.up[e], g.accumulate, nothing);
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
void small_expert(const Layer<T>& layer, const Panels<T>& panels, const Backward<T>& all,
                  const ExpertGradients* gradients, index_t e) {
  Workspace::Frame frame(thread_workspace());
  const index_t begin = layer.begin(e), end = begin + layer.count(e), hidden = layer.hidden;
  T* const a = frame.take<T>(size(kTile * padded_k<T>(hidden)));
  T* const d_h = frame.take<T>(size(kTile * 2 * layer.wide));
  T* const act = frame.take<T>(size(kTile * layer.wide));
  Operands<T> operands(layer, gradients != nullptr ? end - begin : 0, frame);
  layer.gemm.begin();
  for (index_t r = begin; r < end; r += kTile) {
    const RowBlock b = row_block(layer.rows, r, end, all.weight);
    gather(all.dy, hidden, b.tokens, b.rows, a);
    backward_block(layer, panels, b, all, a, d_h, act);
    if (gradients != nullptr) operands.add(layer, b, r - begin, a, d_h, act);
  }
  if (gradients != nullptr) small_weight_gradients(layer, operands, all.x, *gradients, e);
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
  Backward<T> all{.x = x,
                  .dy = dy,
                  .weight = weight,
                  .saved = saved,
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
    if (whole && kept == nullptr) return small_expert(layer, panels, all, gradients, e);
    Workspace::Frame own(thread_workspace());
    T* const a = own.take<T>(size(kTile * padded_k<T>(layer.hidden)));
    layer.gemm.begin();
    for (index_t r = begin; r < end; r += kTile) {
      const RowBlock b = row_block(rows, r, end, weight);
      gather(dy, layer.hidden, b.tokens, b.rows, a);
      backward_block(layer, panels, b, all, a, all.d_h + r * 2 * layer.wide, all.act + r * layer.wide);
    }
    layer.gemm.end();
  });
  if (dx != nullptr && !direct) combine(layer, all.slots, addend, dx);
  for (index_t e = 0; e < rows.experts() && gradients != nullptr; ++e)
    if (layer.count(e) > kBigRows || layer.count(e) == 0) big_weight_gradients(layer, all, *gradients, e);
}

template <class T>
void experts_weight_gradients(Isa isa, const ExpertMatrices<T>& weights, const ExpertRows& rows, const T* x,
                              const T* dy, const T* kept, const ExpertGradients& gradients) {
  const Layer<T> layer(isa, weights, rows, false);
  Backward<T> all{.x = x,
                  .dy = dy,
                  .weight = nullptr,
                  .saved = nullptr,
                  .d_h = nullptr,
                  .act = nullptr,
                  .slots = nullptr,
                  .d_weight = nullptr};
  split_kept(layer, rows.rows(), const_cast<T*>(kept), all);  // read only
  // Small experts side by side, each on one thread; big ones on all threads, one after another.
  parallel_for(size(rows.experts()), 1, [&](std::size_t begin, std::size_t end) {
    for (auto e = static_cast<index_t>(begin); e < static_cast<index_t>(end); ++e)
      if (layer.count(e) <= kBigRows) big_weight_gradients(layer, all, gradients, e);
  });
  for (index_t e = 0; e < rows.experts(); ++e)
    if (layer.count(e) > kBigRows) big_weight_gradients(layer, all, gradients, e);
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
