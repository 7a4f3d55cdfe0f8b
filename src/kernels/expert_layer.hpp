// What the forward and the backward pass of experts share: weights packed into panels, tokens' rows found and
// put together in blocks, and the order in which both meet. Internal linkage: for experts.cpp and
// experts_backward.cpp alone.
#pragma once

#include <algorithm>
#include <cstring>
#include <tuple>

#include "base/index.hpp"
#include "base/loop_threads.hpp"
#include "base/threads.hpp"
#include "kernels/experts.hpp"
#include "kernels/read_ahead.hpp"
#include "kernels/tile_pipeline.hpp"

namespace sinew {
namespace {

constexpr index_t kBigRows = 1024;          // an expert of more rows may be shared among the threads ...
constexpr index_t kMostRows = 2048;         // ... one of more than these always is ...
constexpr index_t kChunk = 256;             // ... in pieces of this many
constexpr index_t kFitBytes = 1280 << 10;   // of panels that a cache holds beside the rows they meet
constexpr index_t kPanelBytes = 384 << 10;  // of panels that all rows of such a piece go over in turn

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
  index_t big;  // rows above which an expert is shared: more than a quarter of a thread's share

  Layer(Isa set, const ExpertMatrices<T>& w, const ExpertRows& r, bool is_forward)
      : isa(set),
        weights(w),
        rows(r),
        gemm(product_kernels<T>(set)),
        vector(vector_kernels<T>(set)),
        forward(is_forward),
        past(r.rows() * w.hidden * static_cast<index_t>(sizeof(T)) >= kPastCaches),
        hidden(w.hidden),
        width(w.width),
        wide(padded_width(w.width)),
        big(std::clamp(r.rows() / (4 * loop_threads()), kBigRows, kMostRows)) {}

  // Whether one expert's panels stay in the cache while its rows go by.
  bool fits() const {
    const index_t all = (forward ? 2 : 1) * first_size() + third_size();
    return all * static_cast<index_t>(sizeof(T)) <= kFitBytes;
  }
  index_t hidden_panels() const { return round_up(hidden, kTile) / kTile; }
  index_t width_panels() const { return wide / kTile; }
  index_t begin(index_t e) const { return rows.offsets[size(e)]; }
  index_t count(index_t e) const { return rows.offsets[size(e) + 1] - rows.offsets[size(e)]; }
  bool is_big(index_t e) const { return count(e) > big; }
  // Elements of a Panels' first and third.
  index_t first_size() const {
    return forward ? width_panels() * gemm.panel_size(hidden) : hidden_panels() * gemm.panel_size(2 * wide);
  }
  index_t third_size() const {
    return forward ? hidden_panels() * gemm.panel_size(wide) : width_panels() * gemm.panel_size(hidden);
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
  const index_t which = std::min<index_t>(i / first, 2), index = i - which * first, column = index * kTile;
  const T* const gate_or_up = (which == 0 ? layer.weights.gate : layer.weights.up)[e];
  const bool deep = (which < 2) == layer.forward;  // k = hidden
  T* panel = nullptr;
  if (which == 2)
    panel = out.third + index * layer.gemm.panel_size(deep ? layer.hidden : layer.wide);
  else if (layer.forward)
    panel = (which == 0 ? out.first : out.second) + index * layer.gemm.panel_size(layer.hidden);
  else
    panel =
        out.first + index * layer.gemm.panel_size(2 * layer.wide) + which * layer.gemm.panel_size(layer.wide);
  const index_t k = deep ? layer.hidden : layer.width;
  if (k0 >= k) return;
  k1 = std::min(k, k1);
  if (!deep && k1 == k) {
    const index_t written = layer.gemm.panel_size(layer.width);
    std::memset(static_cast<void*>(panel + written), 0,
                size(layer.gemm.panel_size(layer.wide) - written) * sizeof(T));
  }
  const index_t hidden_left = std::min(kTile, layer.hidden - column),
                width_left = std::min(kTile, layer.width - column), hidden = layer.hidden,
                width = layer.width;
  T* const at = panel + k0 * layer.gemm.row;
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

// Panels of the weights [from, to) of gate, up and down of expert e, 32 rows of a weight after the other:
// forward one panel, backward a piece of every panel.
template <class T>
void pack_expert(const Layer<T>& layer, index_t e, const Panels<T>& out, index_t from, index_t to) {
  const index_t hidden = layer.hidden, width = layer.width;
  const index_t first = layer.forward ? layer.width_panels() : layer.hidden_panels();
  for (index_t which = from; which < to; ++which) {
    const auto& [weights, rows, columns] =
        which == 2 ? std::tuple{layer.weights.down, hidden, width}
                   : std::tuple{which == 0 ? layer.weights.gate : layer.weights.up, width, hidden};
    const index_t begin = which * first, end = which == 2 ? layer.panels() : begin + first;
    for (index_t r = 0; r < rows; r += kTile) {
      const index_t next = std::min(rows, r + kTile);
      read_through(weights[e] + r * columns, size((next - r) * columns) * sizeof(T));
      if (layer.forward)
        pack_panel(layer, e, out, begin + r / kTile);
      else
        for (index_t i = begin; i < end; ++i) pack_panel(layer, e, out, i, r, next);
    }
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

// A tile of results on their way to the slots of a block's rows: columns of panel p, times `weights` (or
// null).
template <class T>
TileWork<T> slot_columns(const Layer<T>& layer, const RowBlock& b, const float* tile, const float* weights,
                         T* slots, index_t p) {
  return {.kind = TileWork<T>::Kind::rows,
          .rows = b.rows,
          .columns = std::min(kTile, layer.hidden - p * kTile),
          .tile = tile,
          .weight = weights,
          .past = layer.past,
          .out = slots + p * kTile,
          .ld = layer.hidden,
          .index = b.slots};
}

// A part of an expert's rows, [begin, end), and its weights. Where `whole` is set it is all of a small
// expert, whose panels are this task's own and not yet packed; else they are.
template <class T>
struct Part {
  index_t expert, begin, end;
  bool whole;
  Panels<T> panels;
};

// Calls body(part) so that all rows of all experts are covered. A small expert is one task that packs its
// weights for itself (they stay in the thread's cache); the weights of big ones are packed by all threads
// first.
template <class T, class Body>
void for_expert_rows(const Layer<T>& layer, const Body& body) {
  Workspace::Frame frame(thread_workspace());
  const index_t experts = layer.rows.experts();
  index_t parts = 0, big = 0;
  for (index_t e = 0; e < experts; ++e) {
    parts += layer.is_big(e) ? (layer.count(e) + kChunk - 1) / kChunk : layer.count(e) > 0;
    big += layer.is_big(e);
  }
  Part<T>* const list = frame.take<Part<T>>(size(parts));
  Part<T>** const of_big = frame.take<Part<T>*>(size(big));
  parts = big = 0;
  for (index_t e = 0; e < experts; ++e) {
    const index_t begin = layer.begin(e), end = begin + layer.count(e);
    if (!layer.is_big(e)) {
      if (begin < end) list[parts++] = {e, begin, end, true, {}};
      continue;
    }
    of_big[big++] = list + parts;
    const Panels<T> panels = take_panels(layer, frame);
    for (index_t r = begin; r < end; r += kChunk)
      list[parts++] = {e, r, std::min(end, r + kChunk), false, panels};
  }
  parallel_for(size(big * layer.panels()), 4, [&](std::size_t begin, std::size_t end) {
    for (auto i = static_cast<index_t>(begin); i < static_cast<index_t>(end); ++i) {
      const Part<T>& part = *of_big[i / layer.panels()];
      pack_panel(layer, part.expert, part.panels, i % layer.panels());
    }
  });
  // Long ones first: the last to be taken is what the other threads wait for.
  std::sort(list, list + parts, [](const Part<T>& a, const Part<T>& b) {
    const index_t x = a.end - a.begin, y = b.end - b.begin;
    return x != y ? x > y : a.begin < b.begin;
  });
  parallel_for(size(parts), 1, [&](std::size_t first, std::size_t last) {
    for (std::size_t i = first; i < last; ++i) {
      Workspace::Frame own(thread_workspace());
      Part<T> part = list[i];
      if (part.whole) part.panels = take_panels(layer, own);
      body(part);
      publish();
    }
  });
}

// The rows of a part that go through one weight before they go through the next: a block at a time where all
// panels fit the cache, else all.
template <class T>
index_t rows_at_once(const Layer<T>& layer, const Part<T>& part) {
  return layer.fits() ? kTile : std::max(kTile, part.end - part.begin);
}

// body(first panel, end) over groups of `all` panels, each of `elements`, that a cache holds beside the rows.
template <class T, class Body>
void each_group(const Layer<T>& layer, index_t all, index_t elements, const Body& body) {
  // Where each group wants the rows in a form of their own again, fewer groups.
  const index_t most = layer.gemm.make_left != nullptr ? kFitBytes : kPanelBytes;
  const index_t bytes = std::max<index_t>(1, elements * static_cast<index_t>(sizeof(T)));
  const index_t group = layer.fits() ? all : std::max<index_t>(1, most / bytes);
  for (index_t p = 0; p < all; p += group) body(p, std::min(all, p + group));
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

}  // namespace
}  // namespace sinew
