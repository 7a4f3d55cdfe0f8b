#include "kernels/quant_experts.hpp"

#include <algorithm>
#include <cstring>
#include <new>
#include <utility>

#include "base/error.hpp"
#include "base/team.hpp"
#include "kernels/quant_stream.hpp"

namespace sinew {
namespace {

std::size_t size(index_t n) { return static_cast<std::size_t>(n); }
index_t units(index_t count, index_t unit) { return (count + unit - 1) / unit; }

// One network at work.
struct Network {
  const PackedSwiglu* w = nullptr;
  const std::int32_t* tokens = nullptr;  // null: 0, 1, ..
  const float* factor = nullptr;         // null: 1
  index_t count = 0, width = 0;
  QuantBatch act{};                   // rows of the network
  TiledBatch tiled_x{}, tiled_act{};  // of networks with many rows
  float *h = nullptr, *up = nullptr;  // [count, width]: silu(gate) * up; up of few rows
  float* out = nullptr;               // [count, hidden]

  std::int32_t token(index_t i) const { return tokens != nullptr ? tokens[i] : static_cast<std::int32_t>(i); }
  bool few() const { return count <= kFewTokens; }
  index_t groups() const { return units(count, 16); }
};

struct Layer {
  const QuantKernels& kernels;
  index_t tokens, hidden;
  QuantBatch x{};
  std::span<Network> networks{};
  std::int32_t* offset = nullptr;  // [tokens + 1] into slots
  const float** slots = nullptr;   // results of each token in the order of the networks ..
  float* factors = nullptr;        // .. and their factors
};

// body(network, unit) for every unit of every network, on the team.
template <class Units, class Body>
void each_unit(const Layer& l, const Units& units_of, const Body& body) {
  index_t tasks = 0;
  for (const Network& n : l.networks) tasks += units_of(n);
  parallel_tasks(tasks, [&](index_t task) {
    const Network* n = l.networks.data();
    for (; task >= units_of(*n); ++n) task -= units_of(*n);
    body(*n, task);
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

// Columns 128 unit .. of h for all rows of a network.
void gate_up(const Layer& l, const Network& n, index_t unit) {
  const index_t column = unit * kBlockRows, columns = std::min(kBlockRows, n.width - column);
  Workspace::Frame frame(thread_workspace());
  float* const up = frame.take<float>(size(n.count * columns));
  BlockProduct{l.kernels, n.w->gate, column}(n.tiled_x, n.count, n.h + column, n.width, nullptr);
  BlockProduct{l.kernels, n.w->up, column}(n.tiled_x, n.count, up, columns, nullptr);
  for (index_t i = 0; i < n.count; ++i)
    l.kernels.swiglu(n.h + i * n.width + column, up + i * columns, columns);
}

// Up to 16 rows of h in 8 bits.
void quantize_group(const Layer& l, const Network& n, index_t group) {
  const index_t first = group * 16, count = std::min<index_t>(16, n.count - first);
  for (index_t i = first; i < first + count; ++i) {
    if (n.few()) l.kernels.swiglu(n.h + i * n.width, n.up + i * n.width, n.width);
    l.kernels.quantize_row(n.h + i * n.width, n.width, n.act.row(i));
  }
  if (!n.few()) fill_group(n.act, nullptr, first, count, n.tiled_act, group);
}

// Rows 128 unit .. of down for one network: out.
void down(const Layer& l, const Network& n, index_t unit) {
  const index_t column = unit * kBlockRows;
  BlockProduct{l.kernels, n.w->down, column}(n.tiled_act, n.count, n.out + column, l.hidden, nullptr);
}

// Where each token's results will be.
void find_slots(Layer& l, Workspace::Frame& frame) {
  index_t used = 0;
  for (const Network& n : l.networks) used += n.count;
  l.offset = frame.take<std::int32_t>(size(l.tokens + 2)) + 1;
  l.slots = frame.take<const float*>(size(used));
  l.factors = frame.take<float>(size(used));
  std::fill_n(l.offset - 1, l.tokens + 2, 0);
  for (const Network& n : l.networks)
    for (index_t i = 0; i < n.count; ++i) ++l.offset[n.token(i) + 1];
  for (index_t t = 0; t < l.tokens; ++t) l.offset[t + 1] += l.offset[t];
  // Filling moves each token's start to its end: then all starts stand one place further down.
  for (const Network& n : l.networks)
    for (index_t i = 0; i < n.count; ++i) {
      const std::int32_t at = l.offset[n.token(i)]++;
      l.slots[at] = n.out + i * l.hidden;
      l.factors[at] = n.factor != nullptr ? n.factor[i] : 1.0F;
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
    n.act = take_batch(frame, n.count, n.width);
    n.h = frame.take<float>(size(n.count * n.width));
    n.out = frame.take<float>(size(n.count * l.hidden));
    if (n.few()) {
      n.up = frame.take<float>(size(n.count * n.width));
      continue;
    }
    n.tiled_x = take_tiles(frame, n.groups(), l.hidden);
    n.tiled_act = take_tiles(frame, n.groups(), n.width);
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
      l, [](const Network& n) { return n.few() ? 0 : units(n.width, kBlockRows); },
      [&](const Network& n, index_t unit) { gate_up(l, n, unit); });
  each_unit(
      l, [](const Network& n) { return n.groups(); },
      [&](const Network& n, index_t group) { quantize_group(l, n, group); });
  down_few(l);
  each_unit(
      l, [&](const Network& n) { return n.few() ? 0 : units(hidden, kBlockRows); },
      [&](const Network& n, index_t unit) { down(l, n, unit); });
  parallel_tasks(tokens, [&](index_t t) {
    for (std::int32_t i = l.offset[t]; i < l.offset[t + 1]; ++i)
      kernels->add_scaled(l.slots[i], l.factors[i], hidden, y + t * ldy);
  });
}

}  // namespace sinew
