#include "engine/infer_bench.hpp"

#include <algorithm>

#include "base/clock.hpp"
#include "base/index.hpp"
#include "base/random.hpp"
#include "engine/packing.hpp"
#include "kernels/read_bandwidth.hpp"

namespace sinew::engine {
namespace {

// work / seconds[i] / limits[i].
Share share_of(double work, std::span<const double> seconds, std::vector<double> limits) {
  std::vector<double> shares;
  for (std::size_t i = 0; i < limits.size(); ++i)
    if (limits[i] > 0) shares.push_back(work / seconds[i] / limits[i]);
  if (shares.empty()) return {};
  return {median_range(std::move(shares)), median_range(std::move(limits)).median};
}

std::vector<TokenId> random_tokens(const Model& model, index_t count, std::uint64_t seed) {
  const Random random(seed, "bench tokens");
  std::vector<TokenId> ids;
  for (index_t i = 0; i < count; ++i)
    ids.push_back(static_cast<TokenId>(random.below(size(i), size(model.config.vocab_size))));
  return ids;
}

double elements(const WeightMatrix& w) { return static_cast<double>(w.rows) * static_cast<double>(w.cols); }
double elements(const SwigluWeights& w) { return elements(w.gate) + elements(w.up) + elements(w.down); }

}  // namespace

double operations_per_token(const Model& model) {
  double sum = 0;
  for (const Layer& layer : model.layers) {
    sum += elements(layer.o);
    if (layer.latent) {
      const LatentAttention& a = *layer.latent;
      if (a.q_a.present()) sum += elements(a.q_a);
      sum += elements(a.q) + elements(a.kv_a);
      for (const auto* list : {&a.key_up, &a.value_up})
        for (const WeightMatrix& w : *list) sum += elements(w);
    }
    if (layer.grouped)
      sum += elements(layer.grouped->q) + elements(layer.grouped->k) + elements(layer.grouped->v);
    if (layer.dense) sum += elements(*layer.dense);
    if (!layer.moe) continue;
    sum += elements(layer.moe->router) +
           static_cast<double>(model.config.moe.num_experts_per_tok) * elements(layer.moe->experts[0]);
    if (layer.moe->shared) sum += elements(*layer.moe->shared);
  }
  return 2 * sum;
}

PrefillFigure bench_prefill(Session& session, index_t tokens, int repeats) {
  constexpr double kPeakSeconds = 0.25;
  const Model& model = session.model();
  const auto ids = random_tokens(model, tokens, 1);
  std::vector<double> seconds, peaks;
  for (int i = 0; i <= repeats; ++i) {
    Sequence sequence = session.make_sequence();
    const double s = seconds_of([&] { session.forward(sequence, ids); });
    if (i == 0) continue;  // the first one warms up
    seconds.push_back(s);
    peaks.push_back(int8_rate(kPeakSeconds));
  }
  PrefillFigure figure{
      .tokens = tokens,
      .operations = static_cast<double>(tokens) * operations_per_token(model) + 2 * elements(model.head),
      .weight_bytes = static_cast<double>(model.weight_bytes - model.embedding.bytes())};
  figure.of_peak = share_of(figure.operations, seconds, std::move(peaks));
  figure.seconds = median_range(std::move(seconds));
  return figure;
}

namespace {

// Sequences of one depth that go on step by step.
struct Decoding {
  DecodeFigure figure;
  std::vector<Sequence> sequences;
  std::vector<TokenId> ids;
  std::vector<double> seconds;

  void step(Session& session, int number) {
    std::vector<Input> inputs;
    const index_t batch = figure.batch;
    for (index_t b = 0; b < batch; ++b)
      inputs.push_back({&sequences[size(b)], std::span(ids).subspan(size(number * batch + b), 1)});
    seconds.push_back(
        seconds_of([&] { session.forward(inputs, [](std::size_t, index_t, std::span<const float>) {}); }));
  }
};

// `seed`: other tokens choose other experts, which are not in a cache from the step before.
Decoding begin_decoding(Session& session, index_t depth, index_t batch, int steps, std::uint64_t seed) {
  const Model& model = session.model();
  Decoding out{.figure = {.depth = depth,
                          .batch = batch,
                          .weight_bytes = static_cast<double>(model.bytes_per_token()),
                          .cache_bytes = static_cast<double>(batch * (depth + steps / 2)) *
                                         static_cast<double>(session.pool().bytes_per_token())},
               .sequences = {},
               .ids = random_tokens(model, batch * steps, seed),
               .seconds = {}};
  for (index_t b = 0; b < batch; ++b) {
    if (b > 0) {
      out.sequences.push_back(out.sequences[0].fork(depth));
      continue;
    }
    out.sequences.push_back(session.make_sequence());
    const auto ids = random_tokens(model, depth, 2);
    if (depth > 0) session.forward(out.sequences[0], ids);
  }
  return out;
}

// Bare reading of weights, each time of those that follow: what was read last may be in a cache.
class BareReading {
 public:
  BareReading(const Model& model, const ReadPattern& pattern)
      : memory_(decoding_memory(model)), pattern_(pattern) {}
  double bytes_per_second(std::size_t bytes) {
    const auto window = memory_window(memory_, at_, bytes);
    at_ += bytes;
    return static_cast<double>(bytes) / seconds_of([&] { read_memory(window, pattern_); });
  }

 private:
  std::vector<MemoryRange> memory_;
  ReadPattern pattern_;
  std::size_t at_ = 0;
};

}  // namespace

index_t decoding_tokens(std::span<const index_t> depths, index_t batch, int steps) {
  index_t sum = 0;  // a page more for every sequence's own
  for (const index_t depth : depths) sum += depth + kPage + batch * (steps + 2 * kPage);
  return sum;
}

std::vector<DecodeFigure> bench_decode(Session& session, std::span<const index_t> depths, index_t batch,
                                       int steps, const ReadPattern& pattern) {
  constexpr int kWarm = 2;
  const Model& model = session.model();
  std::vector<Decoding> work;
  for (std::size_t i = 0; i < depths.size(); ++i)
    work.push_back(begin_decoding(session, depths[i], batch, steps + kWarm, 3 + i));
  BareReading reading(model, pattern);
  std::vector<double> rates;
  for (int step = 0; step < steps + kWarm; ++step) {
    for (Decoding& one : work) one.step(session, step);
    if (batch == 1 && step >= kWarm) rates.push_back(reading.bytes_per_second(model.bytes_per_token()));
  }
  std::vector<DecodeFigure> figures;
  for (Decoding& one : work) {
    one.seconds.erase(one.seconds.begin(), one.seconds.begin() + kWarm);
    one.figure.of_reading = share_of(one.figure.weight_bytes + one.figure.cache_bytes, one.seconds, rates);
    one.figure.seconds = median_range(std::move(one.seconds));
    figures.push_back(one.figure);
  }
  return figures;
}

std::vector<MemoryRange> memory_window(std::span<const MemoryRange> ranges, std::size_t first,
                                       std::size_t bytes) {
  std::size_t all = 0;
  for (const MemoryRange& range : ranges) all += range.size();
  std::vector<MemoryRange> window;
  if (all == 0) return window;
  std::size_t skip = first % all;
  for (std::size_t i = 0; bytes > 0; i = (i + 1) % ranges.size()) {
    const std::size_t begin = std::min(skip, ranges[i].size());
    skip -= begin;
    const std::size_t count = std::min(bytes, ranges[i].size() - begin);
    if (count > 0) window.push_back(ranges[i].subspan(begin, count));
    bytes -= count;
  }
  return window;
}

std::vector<MemoryRange> decoding_memory(const Model& model) {
  std::vector<MemoryRange> parts, joined;
  each_decoding_matrix(model, model.config.moe.n_routed_experts, [&](const WeightMatrix& w) {
    if (const PackedMatrix* p = packed(w))
      parts.emplace_back(p->data, w.packed->bytes());
    else if (w.data != nullptr)
      parts.emplace_back(w.data, w.bytes());
  });
  std::sort(parts.begin(), parts.end(),
            [](const MemoryRange& a, const MemoryRange& b) { return a.data() < b.data(); });
  for (const MemoryRange& part : parts) {
    if (!joined.empty()) {
      MemoryRange& last = joined.back();
      const auto gap = part.data() - (last.data() + last.size());  // packed matrices begin at multiples of 64
      if (gap == static_cast<std::ptrdiff_t>((64 - last.size() % 64) % 64)) {
        last = {last.data(), last.size() + size(gap) + part.size()};
        continue;
      }
    }
    joined.push_back(part);
  }
  return joined;
}

}  // namespace sinew::engine
