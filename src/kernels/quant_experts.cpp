#include "kernels/quant_experts.hpp"

#include <algorithm>
#include <cstring>
#include <new>

#include "base/error.hpp"
#include "base/index.hpp"
#include "base/team.hpp"
#include "kernels/quant_slices.hpp"
#include "kernels/quant_stream.hpp"
#include "kernels/unit_list.hpp"

namespace sinew {
namespace {

// One network at work.
struct Network {
  const PackedSwiglu* w = nullptr;
  const std::int32_t* tokens = nullptr;  // null: 0, 1, ..
  const float* factor = nullptr;         // null: 1
  index_t count = 0, width = 0;
  // Of few rows:
  QuantBatch act{};
  float *h = nullptr, *up = nullptr;  // [count, width]: silu(gate) * up, up
  // Of many:
  TiledBatch tiled_x{}, tiled_act{};
  float* out = nullptr;  // results: few [count, hidden], many [hidden / 32][16 * groups()][32]

  std::int32_t token(index_t i) const { return tokens != nullptr ? tokens[i] : static_cast<std::int32_t>(i); }
  bool few() const { return count <= kFewTokens; }
  index_t groups() const { return units(count, 16); }
  index_t piece() const { return few() ? kSliceRows : groups() * 16 * kSliceRows; }  // next 32 of a result
};

struct Layer {
  const QuantKernels& kernels;
  index_t tokens, hidden;
  QuantBatch x{};
  std::span<Network> networks{};
  std::int32_t* offset = nullptr;  // [tokens + 1] into slots
  struct Slot {
    const float* x;
    index_t piece;
    float factor;
  };
  Slot* slots = nullptr;  // results of each token in the order of the networks
};

// body(network, unit) for every unit of every network, on the team.
template <class Units, class Body>
void each_unit(const Layer& l, const Units& units_of, const Body& body) {
  parallel_tasks(count_units(l.networks, units_of), [&](index_t task) {
    const auto [n, unit] = find_unit(l.networks, units_of, task);
    body(*n, unit);
  });
}

// Activations of a network's rows: its own, or of its tokens.
const QuantRow* rows_of(const Network& n, const QuantBatch& from, bool by_token, Workspace::Frame& frame) {
  auto* const rows = frame.take<QuantRow>(size(n.count));
  for (index_t i = 0; i < n.count; ++i) rows[i] = from.row(by_token ? n.token(i) : i);
  return rows;
}

// Gate and up of all networks with few rows: into h and `up`.
void gate_up_few(const Layer& l) {
  Workspace::Frame frame(thread_workspace());
  auto* const products = frame.take<FewProduct>(2 * l.networks.size());
  std::size_t count = 0;
  for (const Network& n : l.networks) {
    if (!n.few() || n.count == 0) continue;
    const QuantRow* const rows = rows_of(n, l.x, true, frame);
    products[count++] = {&n.w->gate, rows, n.count, n.h, n.width, nullptr};
    products[count++] = {&n.w->up, rows, n.count, n.up, n.width, nullptr};
  }
  few_products(l.kernels, {products, count});
}

// Down of the same.
void down_few(const Layer& l) {
  Workspace::Frame frame(thread_workspace());
  auto* const products = frame.take<FewProduct>(l.networks.size());
  std::size_t count = 0;
  for (const Network& n : l.networks)
    if (n.few() && n.count > 0)
      products[count++] = {&n.w->down, rows_of(n, n.act, false, frame), n.count, n.out, l.hidden, nullptr};
  few_products(l.kernels, {products, count});
}

// Silu(gate) * up of the few rows of a network, in 8 bits.
void quantize_few(const Layer& l, const Network& n) {
  for (index_t i = 0; i < n.count; ++i) {
    l.kernels.swiglu(n.h + i * n.width, n.up + i * n.width, n.width);
    l.kernels.quantize_row(n.h + i * n.width, n.width, n.act.row(i));
  }
}

constexpr index_t kSpanSlices = kSpan / kSliceRows;

// A span of the activations in 8 bits: h [slices][16 * groups][32].
void quantize_span(const Layer& l, const Network& n, index_t span, const float* h, index_t columns) {
  const index_t places = n.groups() * 16;
  alignas(64) float row[kSpan] = {};
  alignas(64) std::int8_t q[kSpan];
  std::int32_t sums[kSpan / 16];
  float scale = 0, pairs[kSpan / 32];
  for (index_t t = 0; t < n.count; ++t) {
    for (index_t c = 0; c < columns; c += kSliceRows)
      std::memcpy(row + c, h + c * places + t * kSliceRows, kSliceRows * sizeof(float));
    l.kernels.quantize_row(row, columns, {q, &scale, sums, pairs});
    std::int32_t sum = 0;
    for (index_t i = 0; i < padded_cols(columns) / 16; ++i) sum += sums[i];
    n.tiled_act.put(span, t, q, scale, sum);
  }
  for (index_t t = n.count; t < places; ++t) n.tiled_act.clear(span, t);
}

// The first slices that a task reads.
struct Coming {
  Slice first{}, second{};
};
Coming first_of_gate_up(const Network& n, index_t span) {
  return {{&n.w->gate, span * kSpanSlices}, {&n.w->up, span * kSpanSlices}};
}

// Span `span` of the activations of a network with many rows: gate, up, silu(gate) * up in 8 bits.
void gate_up(const Layer& l, const Network& n, index_t span, const Coming& after) {
  const index_t columns = std::min(kSpan, n.width - span * kSpan), slices = units(columns, kSliceRows);
  const index_t places = n.groups() * 16;
  Workspace::Frame frame(thread_workspace());
  SliceJob jobs[2] = {{frame, l.hidden}, {frame, l.hidden}};
  float* const h = frame.take<float>(size(slices * places * kSliceRows));
  alignas(64) float up[kGroupsHeld * 16 * kSliceRows];
  jobs[0].keep_acc = true;
  jobs[1].acc = up;
  for (index_t i = 0; i < slices; ++i) {
    const index_t slice = span * kSpanSlices + i;
    float* const gate = h + i * places * kSliceRows;
    const bool last = i + 1 == slices;
    jobs[0].slice = {&n.w->gate, slice};
    jobs[0].coming = last ? after.first : Slice{&n.w->gate, slice + 1};
    jobs[0].acc = gate;
    jobs[1].slice = {&n.w->up, slice};
    jobs[1].coming = last ? after.second : Slice{&n.w->up, slice + 1};
    multiply_slices(l.kernels, n.tiled_x, jobs, [&](index_t g, index_t held) {
      const index_t tokens = std::min(held * 16, n.count - g * 16);
      l.kernels.swiglu(gate + g * 16 * kSliceRows, up, tokens * kSliceRows);
    });
  }
  quantize_span(l, n, span, h, columns);
}

// Rows 256 unit .. of down for a network with many rows: out.
void down(const Layer& l, const Network& n, index_t unit, const Coming& after) {
  const index_t slices = units(std::min(kSpan, l.hidden - unit * kSpan), kSliceRows);
  Workspace::Frame frame(thread_workspace());
  SliceJob job(frame, n.width);
  job.keep_acc = true;
  for (index_t i = 0; i < slices; ++i) {
    const index_t slice = unit * kSpanSlices + i;
    job.slice = {&n.w->down, slice};
    job.acc = n.out + slice * n.piece();
    job.coming = i + 1 < slices ? Slice{&n.w->down, slice + 1} : after.first;
    multiply_slices(l.kernels, n.tiled_act, {&job, 1}, [](index_t, index_t) {});
  }
}

// body(network, unit, what the same thread reads then) for every unit of the networks with many rows.
template <class Units, class First, class Body>
void each_many(const Layer& l, const Units& units_of, const First& first_of, const Body& body) {
  const auto count = [&](const Network& n) { return n.few() ? 0 : units_of(n); };
  chained_tasks(count_units(l.networks, count), [&](index_t task, index_t next) {
    Coming after;
    if (next >= 0) {
      const auto [n, unit] = find_unit(l.networks, count, next);
      after = first_of(*n, unit);
    }
    const auto [n, unit] = find_unit(l.networks, count, task);
    body(*n, unit, after);
  });
}

// Where each token's results will be.
void find_slots(Layer& l, Workspace::Frame& frame) {
  index_t used = 0;
  for (const Network& n : l.networks) used += n.count;
  l.offset = frame.take<std::int32_t>(size(l.tokens + 2)) + 1;
  l.slots = frame.take<Layer::Slot>(size(used));
  std::fill_n(l.offset - 1, l.tokens + 2, 0);
  for (const Network& n : l.networks)
    for (index_t i = 0; i < n.count; ++i) ++l.offset[n.token(i) + 1];
  for (index_t t = 0; t < l.tokens; ++t) l.offset[t + 1] += l.offset[t];
  // Filling moves each token's start to its end: then all starts stand one place further down.
  for (const Network& n : l.networks)
    for (index_t i = 0; i < n.count; ++i) {
      const std::int32_t at = l.offset[n.token(i)]++;
      l.slots[at] = {n.out + i * (n.few() ? l.hidden : kSliceRows), n.piece(),
                     n.factor != nullptr ? n.factor[i] : 1.0F};
    }
  --l.offset;
}

void set_up(Layer& l, std::span<const QuantExpertWork> work, Workspace::Frame& frame) {
  l.networks = {frame.take<Network>(work.size()), work.size()};
  for (std::size_t i = 0; i < work.size(); ++i) {
    const QuantExpertWork& item = work[i];
    Network& n = *new (&l.networks[i]) Network;
    n.w = item.weights;
    n.tokens = item.tokens;
    n.factor = item.factor;
    n.count = item.count;
    n.width = n.w->gate.rows;
    if (n.few()) {
      n.out = frame.take<float>(size(n.count * l.hidden));
      n.act = take_batch(frame, n.count, n.width);
      n.h = frame.take<float>(size(n.count * n.width));
      n.up = frame.take<float>(size(n.count * n.width));
      continue;
    }
    n.out = frame.take<float>(size(units(l.hidden, kSliceRows) * n.piece()));
    n.tiled_x = take_tiles(frame, n.count, l.hidden);
    n.tiled_act = take_tiles(frame, n.count, n.width);
  }
  find_slots(l, frame);
}

}  // namespace

void quant_experts(Isa isa, const float* x, index_t ld, index_t tokens, std::span<const QuantExpertWork> work,
                   float* y, index_t ldy) {
  const QuantKernels* const kernels = quant_kernels(isa);
  ensure(kernels != nullptr, "no integer products with {}", isa_name(isa));
  if (tokens == 0 || work.empty()) return;
  const index_t hidden = work[0].weights->gate.cols;
  Workspace::Frame frame(thread_workspace());
  Layer l{.kernels = *kernels, .tokens = tokens, .hidden = hidden};
  l.x = take_batch(frame, tokens, hidden);
  set_up(l, work, frame);
  if (tokens <= kFewTokens)
    for (index_t t = 0; t < tokens; ++t) kernels->quantize_row(x + t * ld, hidden, l.x.row(t));
  else
    parallel_tasks(tokens, [&](index_t t) { kernels->quantize_row(x + t * ld, hidden, l.x.row(t)); });
  each_unit(
      l, [](const Network& n) { return n.few() ? 0 : n.groups(); },
      [&](const Network& n, index_t g) {
        const index_t count = std::min<index_t>(16, n.count - g * 16);
        fill_group(l.x, n.tokens != nullptr ? n.tokens + g * 16 : nullptr, g * 16, count, n.tiled_x, g);
      });
  gate_up_few(l);
  each_unit(
      l, [](const Network& n) { return n.few() && n.count > 0 ? 1 : 0; },
      [&](const Network& n, index_t) { quantize_few(l, n); });
  down_few(l);
  each_many(
      l, [](const Network& n) { return spans(n.width); }, first_of_gate_up,
      [&](const Network& n, index_t span, const Coming& after) { gate_up(l, n, span, after); });
  each_many(
      l, [&](const Network&) { return units(hidden, kSpan); },
      [](const Network& n, index_t unit) {
        return Coming{{&n.w->down, unit * kSpanSlices}, {}};
      },
      [&](const Network& n, index_t unit, const Coming& after) { down(l, n, unit, after); });
  parallel_tasks(tokens, [&](index_t t) {
    for (std::int32_t i = l.offset[t]; i < l.offset[t + 1]; ++i)
      kernels->add_scaled(l.slots[i].x, l.slots[i].piece, l.slots[i].factor, hidden, y + t * ldy);
  });
}

}  // namespace sinew
