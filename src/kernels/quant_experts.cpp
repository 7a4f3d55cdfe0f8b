#include "kernels/quant_experts.hpp"

#include <algorithm>
#include <cstring>
#include <new>

#include "base/error.hpp"
#include "base/index.hpp"
#include "base/team.hpp"
#include "base/threads.hpp"
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
  float* out = nullptr;               // [count, hidden]
  // Of many:
  TiledBatch tiled_x{}, tiled_act{};

  std::int32_t token(index_t i) const { return tokens != nullptr ? tokens[i] : static_cast<std::int32_t>(i); }
  bool few() const { return count <= kFewTokens; }
  index_t groups() const { return units(count, 16); }
};

struct Layer {
  const QuantKernels& kernels;
  index_t tokens, hidden;
  QuantBatch x{};
  std::span<Network> networks{};
  // Results of networks with few rows:
  struct Slot {
    const float* x;
    float factor;
  };
  std::int32_t* offset = nullptr;  // [tokens + 1] into slots
  Slot* slots = nullptr;           // of each token in the order of the networks
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
void quantize_span(const Layer& l, const Network& n, index_t span, const float* h, index_t slices) {
  const index_t places = n.groups() * 16, first = span * places;
  const TiledBatch& out = n.tiled_act;
  for (index_t t = 0; t < n.count; ++t)
    l.kernels.quantize_pieces(h + t * kSliceRows, places * kSliceRows, slices, out.row(span, t),
                              &out.scale[first + t], &out.sums[first + t]);
  for (index_t t = n.count; t < places; ++t) out.clear(span, t);
}

// What a task reads: its first slices, and the activations of its network.
struct Coming {
  Slice first{}, second{};
  const TiledBatch* x = nullptr;
};
Coming first_of_gate_up(const Network& n, index_t span) {
  return {{&n.w->gate, span * kSpanSlices}, {&n.w->up, span * kSpanSlices}, &n.tiled_x};
}
Coming first_of_down(const Network& n, index_t slice) { return {{&n.w->down, slice}, {}, &n.tiled_act}; }

// Activations that are met next, to be fetched in `parts` while others are at work: they are in no near
// cache, and products would wait for each line. Nothing where they are at work already, or too many to stay.
struct NextTokens {
  static constexpr index_t kMost = 256 * 1024 / 64;
  Fetch all{};
  index_t parts;

  NextTokens(const TiledBatch* next, const TiledBatch& now, index_t count) : parts(count) {
    if (next == nullptr || next->q == now.q) return;
    const index_t lines = next->groups() * padded_cols(next->cols) / 4;
    if (lines <= kMost) all = {reinterpret_cast<const std::byte*>(next->q), lines};
  }
  Fetch part(index_t i) const {
    const index_t begin = all.lines * i / parts;
    return {all.at + begin * 64, all.lines * (i + 1) / parts - begin};
  }
};

// Tokens that fill more than one lot meet several slices at once, so that the tokens, more than caches hold,
// go by less often.
index_t jobs_at_once(const Network& n) { return n.groups() > kGroupsHeld ? kMostJobs : 1; }
constexpr index_t kPiece = kGroupsHeld * 16 * kSliceRows;  // of sums

// Span `span` of the activations of a network with many rows: gate, up, silu(gate) * up in 8 bits.
void gate_up(const Layer& l, const Network& n, index_t span, const Coming& after) {
  const index_t columns = std::min(kSpan, n.width - span * kSpan), slices = units(columns, kSliceRows);
  const index_t places = n.groups() * 16, at_once = std::max<index_t>(1, jobs_at_once(n) / 2);
  Workspace::Frame frame(thread_workspace());
  SliceJob* const jobs = take_jobs(frame, l.hidden, 2 * at_once);
  float* const h = frame.take<float>(size(slices * places * kSliceRows));
  alignas(64) float up[kMostJobs / 2 * kPiece];
  const NextTokens coming_tokens(after.x, n.tiled_x, 2 * slices);
  for (index_t i = 0; i < slices; i += at_once) {
    const index_t first = span * kSpanSlices + i, count = std::min(at_once, slices - i), next = i + at_once;
    float* const gate = h + i * places * kSliceRows;
    for (index_t j = 0; j < count; ++j) {
      SliceJob &one = jobs[2 * j], &two = jobs[2 * j + 1];
      one.slice = {&n.w->gate, first + j};
      two.slice = {&n.w->up, first + j};
      one.coming = next < slices ? one.slice.after(at_once) : after.first.after(j);
      two.coming = next < slices ? two.slice.after(at_once) : after.second.after(j);
      one.beside = coming_tokens.part(2 * (i + j));
      two.beside = coming_tokens.part(2 * (i + j) + 1);
      one.acc = gate + j * places * kSliceRows;
      one.keep_acc = true;
      two.acc = up + j * kPiece;
    }
    multiply_slices(l.kernels, n.tiled_x, {jobs, size(2 * count)}, [&](index_t g, index_t held) {
      const index_t tokens = std::min(held * 16, n.count - g * 16);
      for (index_t j = 0; j < count; ++j)
        l.kernels.swiglu(gate + (j * places + g * 16) * kSliceRows, up + j * kPiece, tokens * kSliceRows);
    });
  }
  quantize_span(l, n, span, h, slices);
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

// The next network with many rows from `at` on; null: none.
const Network* next_many(const Layer& l, const Network* at) {
  const Network* const end = l.networks.data() + l.networks.size();
  while (at != end && (at->few() || at->count == 0)) ++at;
  return at != end ? at : nullptr;
}

// Slices of down that a thread makes of all networks before it goes on: their sums stay in its cache. Fewer
// where that keeps more threads busy.
index_t slices_at_once(index_t all) {
  const index_t threads = default_threads();
  index_t n = kSpanSlices;
  while (n > 1 && units(all, n) % threads != 0 && units(all, n) < 4 * threads) n /= 2;
  return n;
}

// sums [tokens, columns] += slices [first, first + slices) of down of one network.
void down(const Layer& l, const Network& n, index_t first, index_t slices, const Coming& after, float* sums,
          index_t columns) {
  const index_t at_once = jobs_at_once(n);
  Workspace::Frame frame(thread_workspace());
  SliceJob* const jobs = take_jobs(frame, n.width, at_once);
  alignas(64) float acc[kMostJobs * kPiece];
  const NextTokens coming_tokens(after.x, n.tiled_act, slices);
  for (index_t i = 0; i < slices; i += at_once) {
    const index_t count = std::min(at_once, slices - i), next = i + at_once;
    for (index_t j = 0; j < count; ++j) {
      jobs[j].slice = {&n.w->down, first + i + j};
      jobs[j].beside = coming_tokens.part(i + j);
      jobs[j].coming = next < slices ? jobs[j].slice.after(at_once) : after.first.after(j);
      jobs[j].acc = acc + j * kPiece;
    }
    multiply_slices(l.kernels, n.tiled_act, {jobs, size(count)}, [&](index_t g, index_t held) {
      const index_t row = g * 16, rows = std::min(held * 16, n.count - row);
      const bool all = n.tokens == nullptr;
      float* const to = sums + (all ? row * columns : 0) + i * kSliceRows;
      for (index_t j = 0; j < count; ++j)
        l.kernels.add_rows(acc + j * kPiece, all ? nullptr : n.tokens + row,
                           n.factor != nullptr ? n.factor + row : nullptr, rows, to + j * kSliceRows,
                           columns);
    });
  }
}

// Down of all networks with many rows, added to y.
void down_many(const Layer& l, float* y, index_t ldy) {
  const Network* const begin = next_many(l, l.networks.data());
  if (begin == nullptr) return;
  const index_t all = units(l.hidden, kSliceRows), step = slices_at_once(all);
  chained_tasks(units(all, step), [&](index_t task, index_t next) {
    const index_t first = task * step, count = std::min(step, all - first), columns = count * kSliceRows;
    Workspace::Frame frame(thread_workspace());
    float* const sums = frame.take<float>(size(l.tokens * columns));
    std::memset(sums, 0, size(l.tokens * columns) * sizeof(float));
    for (const Network* n = begin; n != nullptr;) {
      const Network* const following = next_many(l, n + 1);
      Coming after;
      if (following != nullptr)
        after = first_of_down(*following, first);
      else if (next >= 0)
        after = first_of_down(*begin, next * step);
      down(l, *n, first, count, after, sums, columns);
      n = following;
    }
    const index_t column = first * kSliceRows, used = std::min(columns, l.hidden - column);
    for (index_t t = 0; t < l.tokens; ++t)
      l.kernels.add_scaled(sums + t * columns, kSliceRows, 1.0F, used, y + t * ldy + column);
  });
}

// Where each token's results of networks with few rows will be.
void find_slots(Layer& l, Workspace::Frame& frame) {
  index_t used = 0;
  for (const Network& n : l.networks) used += n.few() ? n.count : 0;
  l.offset = frame.take<std::int32_t>(size(l.tokens + 2)) + 1;
  l.slots = frame.take<Layer::Slot>(size(used));
  std::fill_n(l.offset - 1, l.tokens + 2, 0);
  const auto each = [&](const auto& body) {
    for (const Network& n : l.networks)
      for (index_t i = 0; n.few() && i < n.count; ++i) body(n, i);
  };
  each([&](const Network& n, index_t i) { ++l.offset[n.token(i) + 1]; });
  for (index_t t = 0; t < l.tokens; ++t) l.offset[t + 1] += l.offset[t];
  // Filling moves each token's start to its end: then all starts stand one place further down.
  each([&](const Network& n, index_t i) {
    l.slots[l.offset[n.token(i)]++] = {n.out + i * l.hidden, n.factor != nullptr ? n.factor[i] : 1.0F};
  });
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
  parallel_tasks(tokens, [&](index_t t) {
    for (std::int32_t i = l.offset[t]; i < l.offset[t + 1]; ++i)
      kernels->add_scaled(l.slots[i].x, kSliceRows, l.slots[i].factor, hidden, y + t * ldy);
  });
  down_many(l, y, ldy);
}

}  // namespace sinew
