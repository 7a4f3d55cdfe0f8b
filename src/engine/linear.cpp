#include "engine/linear.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "base/index.hpp"
#include "base/team.hpp"
#include "engine/packing.hpp"
#include "kernels/float_stream.hpp"
#include "kernels/quant_experts.hpp"
#include "kernels/unit_list.hpp"
#include "kernels/vector.hpp"
#include "kernels/workspace.hpp"

namespace sinew::engine {
namespace {

constexpr index_t kFew = 8;  // up to this many tokens, dot products cost less than a packed panel

index_t tiles(index_t n) { return units(n, kTile); }

// Rows [first, first + count) of W against a few tokens, row by row: memory sets the pace, so what is widened
// stays in the first-level cache.
void few_rows(const WeightMatrix& w, index_t first, index_t count, const float* x, index_t ld, index_t tokens,
              float* y, index_t ldy, const float* bias) {
  const VectorKernels<float>& vector = vector_kernels<float>(active_isa());
  Workspace::Frame frame(thread_workspace());
  const bool in_place = w.plain_f32() && reinterpret_cast<std::uintptr_t>(w.data) % alignof(float) == 0;
  float* const wide = in_place ? nullptr : frame.take<float>(size(w.cols));
  for (index_t r = first; r < first + count; ++r) {
    const float* row = wide;
    if (wide != nullptr)
      weight_rows(w, r, 1, wide, w.cols);
    else
      row = reinterpret_cast<const float*>(w.data + size(r) * w.row_bytes);
    for (index_t t = 0; t < tokens; ++t)
      y[t * ldy + r] = vector.dot(row, x + t * ld, w.cols) + (bias != nullptr ? bias[r] : 0.0F);
  }
}

// Rows that a task of few_rows() takes: runs long enough for memory, short enough that threads end together.
index_t rows_at_once(const WeightMatrix& w) {
  constexpr std::size_t kMost = std::size_t{256} << 10;
  const std::size_t bytes = std::clamp(w.bytes() / 32, std::min(w.row_bytes, kMost), kMost);
  return static_cast<index_t>(std::max<std::size_t>(1, bytes / std::max<std::size_t>(1, w.row_bytes)));
}
index_t few_tasks(const Product& p) { return units(p.w->rows, rows_at_once(*p.w)); }

bool streams(const WeightMatrix& w) {
  return w.storage == Storage::blocks && w.data != nullptr && streams_floats(active_isa(), w.format) &&
         w.row_bytes == block_bytes(w.format, size(w.cols));
}

FloatProduct float_product(const Activations& x, const Product& p) {
  return {.format = p.w->format,
          .w = p.w->data,
          .rows = p.w->rows,
          .cols = p.w->cols,
          .x = x.x,
          .ld = x.ld,
          .tokens = x.tokens,
          .y = p.y,
          .ldy = p.ldy,
          .bias = p.bias};
}

void few_products(const Activations& x, std::span<const Product> products) {
  if (std::all_of(products.begin(), products.end(), [](const Product& p) { return streams(*p.w); })) {
    Workspace::Frame frame(thread_workspace());
    auto* const list = frame.take<FloatProduct>(products.size());
    for (std::size_t i = 0; i < products.size(); ++i) list[i] = float_product(x, products[i]);
    return float_products(active_isa(), {list, products.size()});
  }
  parallel_tasks(count_units(products, few_tasks), [&](index_t task) {
    const auto [p, unit] = find_unit(products, few_tasks, task);
    const index_t step = rows_at_once(*p->w), row = unit * step;
    few_rows(*p->w, row, std::min(step, p->w->rows - row), x.x, x.ld, x.tokens, p->y, p->ldy, p->bias);
  });
}

// Rows [row, row + 32) of W against all of x: out [tokens, .., column row..] = x W^T.
struct TileProduct {
  Isa isa = active_isa();
  const GemmKernels<float>& gemm = gemm_kernels<float>(isa);

  void operator()(const WeightMatrix& w, index_t row, const float* x, index_t ld, index_t tokens, float* out,
                  index_t ld_out, const float* bias) const {
    const index_t rows = std::min(kTile, w.rows - row);
    if (tokens <= kFew) return few_rows(w, row, rows, x, ld, tokens, out - row, ld_out, bias);
    Workspace::Frame frame(thread_workspace());
    float* const wide = frame.take<float>(size(rows * w.cols));
    weight_rows(w, row, rows, wide, w.cols);
    blocks(wide, w.cols, rows, x, ld, tokens, out, ld_out, frame);
    if (bias == nullptr) return;
    for (index_t t = 0; t < tokens; ++t)
      for (index_t r = 0; r < rows; ++r) out[t * ld_out + r] += bias[row + r];
  }

 private:
  void blocks(const float* wide, index_t k, index_t rows, const float* x, index_t ld, index_t tokens,
              float* out, index_t ld_out, Workspace::Frame& frame) const {
    float* const panel = frame.take<float>(size(panel_size<float>(k)));
    gemm.pack_b_transposed(wide, k, rows, k, panel);
    alignas(64) float tile[kTile * kTile];
    gemm.begin();
    for (index_t t = 0; t < tokens; t += kTile) {
      const index_t count = std::min(kTile, tokens - t);
      gemm.block(x + t * ld, ld, count, panel, k, tile, kTile, false);
      for (index_t i = 0; i < count; ++i)
        std::memcpy(out + (t + i) * ld_out, tile + i * kTile, size(rows) * sizeof(float));
    }
    gemm.end();
  }
};

// The rows of all networks one after another, those of each begin at a multiple of 16.
struct WorkLayout {
  std::int32_t* first = nullptr;   // [networks]: row of the first
  std::int32_t* offset = nullptr;  // [tokens + 1] into `rows`
  std::int32_t* rows = nullptr;    // rows of each token, in the order of the networks
  index_t total = 0;
};

std::int32_t token_of(const ExpertWork& item, index_t i) {
  return item.tokens != nullptr ? item.tokens[i] : static_cast<std::int32_t>(i);
}

WorkLayout lay_out(index_t tokens, std::span<const ExpertWork> work, Workspace::Frame& frame) {
  WorkLayout layout;
  index_t used = 0;
  layout.first = frame.take<std::int32_t>(work.size());
  layout.offset = frame.take<std::int32_t>(size(tokens + 1));
  std::fill_n(layout.offset, tokens + 1, 0);
  for (std::size_t n = 0; n < work.size(); ++n) {
    layout.first[n] = static_cast<std::int32_t>(layout.total);
    layout.total += round_up(work[n].count, 16);
    used += work[n].count;
    for (index_t i = 0; i < work[n].count; ++i) ++layout.offset[token_of(work[n], i) + 1];
  }
  for (index_t t = 0; t < tokens; ++t) layout.offset[t + 1] += layout.offset[t];
  layout.rows = frame.take<std::int32_t>(size(used));
  std::int32_t* const next = frame.take<std::int32_t>(size(tokens));
  std::copy_n(layout.offset, tokens, next);
  for (std::size_t n = 0; n < work.size(); ++n)
    for (index_t i = 0; i < work[n].count; ++i)
      layout.rows[next[token_of(work[n], i)]++] = layout.first[n] + static_cast<std::int32_t>(i);
  return layout;
}

// Which network and which of its tiles of 32 columns task number `task` is.
struct Place {
  std::size_t network;
  index_t column;
};
template <class Width>
Place find_place(std::span<const ExpertWork> work, index_t task, const Width& width) {
  const auto [item, tile] = find_unit(
      work, [&](const ExpertWork& e) { return tiles(width(e)); }, task);
  return {static_cast<std::size_t>(item - work.data()), tile * kTile};
}

// The packed form of all products; null when one has none.
const QuantProduct* packed_products(std::span<const Product> products, Workspace::Frame& frame) {
  for (const Product& p : products)
    if (packed(*p.w) == nullptr) return nullptr;
  auto* const out = frame.take<QuantProduct>(products.size());
  for (std::size_t i = 0; i < products.size(); ++i)
    out[i] = {packed(*products[i].w), products[i].y, products[i].ldy, products[i].bias};
  return out;
}

bool fully_packed(const SwigluWeights& w, index_t hidden) {
  return packed(w.gate) != nullptr && packed(w.up) != nullptr && packed(w.down) != nullptr &&
         hidden % 16 == 0 && w.gate.rows % 16 == 0;
}

// The packed form of all networks; null when one has none.
const QuantExpertWork* packed_work(std::span<const ExpertWork> work, index_t hidden,
                                   Workspace::Frame& frame) {
  for (const ExpertWork& item : work)
    if (!fully_packed(*item.weights, hidden)) return nullptr;
  auto* const weights = frame.take<PackedSwiglu>(work.size());
  auto* const out = frame.take<QuantExpertWork>(work.size());
  for (std::size_t i = 0; i < work.size(); ++i) {
    const SwigluWeights& w = *work[i].weights;
    weights[i] = {*packed(w.gate), *packed(w.up), *packed(w.down)};
    out[i] = {weights + i, work[i].tokens, work[i].factor, work[i].count};
  }
  return out;
}

void add_results(const WorkLayout& layout, index_t tokens, index_t hidden, const float* out, float* y,
                 index_t ldy) {
  parallel_tasks(tokens, [&](index_t t) {
    for (std::int32_t r = layout.offset[t]; r < layout.offset[t + 1]; ++r)
      for (index_t c = 0; c < hidden; ++c) y[t * ldy + c] += out[layout.rows[r] * hidden + c];
  });
}

void silu_times(float* gate, const float* up, index_t n) {
  for (index_t i = 0; i < n; ++i) gate[i] = gate[i] / (1 + std::exp(-gate[i])) * up[i];
}

// All networks of few tokens at the speed of memory: from rows `in` to rows `out`. False where a matrix is
// not of floats.
bool streamed_networks(std::span<const ExpertWork> work, const WorkLayout& layout, const float* in,
                       float* act, float* up, float* out, index_t hidden, index_t width) {
  for (const ExpertWork& item : work)
    if (!streams(item.weights->gate) || !streams(item.weights->up) || !streams(item.weights->down))
      return false;
  Workspace::Frame frame(thread_workspace());
  auto* const list = frame.take<FloatProduct>(2 * work.size());
  for (std::size_t n = 0; n < work.size(); ++n) {
    const Activations x{in + layout.first[n] * hidden, hidden, work[n].count, hidden};
    const index_t at = layout.first[n] * width;
    list[2 * n] = float_product(x, {&work[n].weights->gate, act + at, width, nullptr});
    list[2 * n + 1] = float_product(x, {&work[n].weights->up, up + at, width, nullptr});
  }
  float_products(active_isa(), {list, 2 * work.size()});
  for (std::size_t n = 0; n < work.size(); ++n) {
    const index_t at = layout.first[n] * width, columns = work[n].weights->gate.rows;
    for (index_t i = 0; i < work[n].count; ++i)
      silu_times(act + at + i * width, up + at + i * width, columns);
    list[n] = float_product({act + at, width, work[n].count, columns},
                            {&work[n].weights->down, out + layout.first[n] * hidden, hidden, nullptr});
  }
  float_products(active_isa(), {list, work.size()});
  for (std::size_t n = 0; n < work.size(); ++n)
    for (index_t i = 0; i < work[n].count && work[n].factor != nullptr; ++i)
      for (index_t c = 0; c < hidden; ++c) out[(layout.first[n] + i) * hidden + c] *= work[n].factor[i];
  return true;
}

}  // namespace

void linear(const Activations& x, std::span<const Product> products) {
  Workspace::Frame frame(thread_workspace());
  if (const QuantProduct* quant = packed_products(products, frame))
    return quant_matmul(active_isa(), x.x, x.ld, x.tokens, x.cols, {quant, products.size()});
  if (x.tokens <= kFew) return few_products(x, products);
  const auto tiles_of = [](const Product& p) { return tiles(p.w->rows); };
  const TileProduct tile;
  parallel_tasks(count_units(products, tiles_of), [&](index_t task) {
    const auto [p, unit] = find_unit(products, tiles_of, task);
    const index_t row = unit * kTile;
    tile(*p->w, row, x.x, x.ld, x.tokens, p->y + row, p->ldy, p->bias);
  });
}

void linear_each(std::span<const HeadProduct> products) {
  const TileProduct tile;
  parallel_tasks(static_cast<index_t>(products.size()), [&](index_t i) {
    const auto& [x, p] = products[size(i)];
    if (p.w->packed != nullptr) return linear(x, p);
    for (index_t row = 0; row < p.w->rows; row += kTile)
      tile(*p.w, row, x.x, x.ld, x.tokens, p.y + row, p.ldy, p.bias);
  });
}

void swiglu_networks(const Activations& x, std::span<const ExpertWork> work, float* y, index_t ldy) {
  Workspace::Frame frame(thread_workspace());
  if (const QuantExpertWork* quant = packed_work(work, x.cols, frame))
    return quant_experts(active_isa(), x.x, x.ld, x.tokens, {quant, work.size()}, y, ldy);
  const WorkLayout layout = lay_out(x.tokens, work, frame);
  index_t width = 0, gate_tasks = 0, down_tasks = 0;
  for (const ExpertWork& item : work) {
    width = std::max(width, item.weights->gate.rows);
    gate_tasks += tiles(item.weights->gate.rows);
    down_tasks += tiles(item.weights->down.rows);
  }
  const index_t hidden = x.cols;
  float* const in = frame.take<float>(size(layout.total * hidden));
  float* const act = frame.take<float>(size(layout.total * width));
  float* const up = frame.take<float>(size(layout.total * width));
  float* const out = frame.take<float>(size(layout.total * hidden));
  for (std::size_t n = 0; n < work.size(); ++n)
    for (index_t i = 0; i < work[n].count; ++i)
      std::copy_n(x.x + token_of(work[n], i) * x.ld, hidden, in + (layout.first[n] + i) * hidden);
  if (x.tokens <= kFew && streamed_networks(work, layout, in, act, up, out, hidden, width)) {
    add_results(layout, x.tokens, hidden, out, y, ldy);
    return;
  }
  const TileProduct tile;
  parallel_tasks(gate_tasks, [&](index_t task) {
    const auto [n, column] = find_place(work, task, [](const auto& item) { return item.weights->gate.rows; });
    const ExpertWork& item = work[n];
    const index_t first = layout.first[n], columns = std::min(kTile, item.weights->gate.rows - column);
    const float* const from = in + first * hidden;
    tile(item.weights->gate, column, from, hidden, item.count, act + first * width + column, width, nullptr);
    tile(item.weights->up, column, from, hidden, item.count, up + first * width + column, width, nullptr);
    for (index_t i = 0; i < item.count; ++i)
      silu_times(act + (first + i) * width + column, up + (first + i) * width + column, columns);
  });
  parallel_tasks(down_tasks, [&](index_t task) {
    const auto [n, column] = find_place(work, task, [](const auto& item) { return item.weights->down.rows; });
    const ExpertWork& item = work[n];
    const index_t first = layout.first[n];
    tile(item.weights->down, column, act + first * width, width, item.count, out + first * hidden + column,
         hidden, nullptr);
    for (index_t i = 0; i < item.count && item.factor != nullptr; ++i)
      for (index_t c = column; c < std::min(hidden, column + kTile); ++c)
        out[(first + i) * hidden + c] *= item.factor[i];
  });
  add_results(layout, x.tokens, hidden, out, y, ldy);
}

}  // namespace sinew::engine
