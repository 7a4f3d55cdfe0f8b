#include "plan/step.hpp"

#include <algorithm>
#include <cmath>

#include "plan/data_traffic.hpp"

namespace sinew::plan {
namespace {

using C = Constant;

// Freed blocks of other sizes stay with the allocator.
constexpr double fragmentation = 1.06;

double sum(const std::vector<double>& values) {
  double total = 0;
  for (const double v : values) total += v;
  return total;
}

// Cuts `weights` into `parts` runs so that the largest sum is least; first and last runs carry extras.
std::vector<int> balanced_cut(const std::vector<double>& weights, int parts, double first_extra,
                              double last_extra) {
  const int n = static_cast<int>(weights.size());
  const auto fits = [&](double limit, std::vector<int>* out) {
    int next = 0;
    for (int part = 0; part < parts; ++part) {
      double load = (part == 0 ? first_extra : 0) + (part == parts - 1 ? last_extra : 0);
      int taken = 0;
      const int must_leave = 0;
      while (next < n - must_leave && load + weights[next] <= limit * (1 + 1e-12))
        load += weights[next++], ++taken;
      if (out) out->push_back(taken);
    }
    return next == n;
  };
  double low = 0, high = sum(weights) + first_extra + last_extra;
  for (int i = 0; i < 60; ++i) {
    const double middle = (low + high) / 2;
    (fits(middle, nullptr) ? high : low) = middle;
  }
  std::vector<int> cut;
  fits(high, &cut);
  return cut;
}

// The layers of one stage by kind, and its cost.
struct Stage {
  LayerCost cost;
  int layers = 0;
};

int kind_of(const Network& n, std::int64_t layer) {
  return (n.is_moe(layer) ? 1 : 0) + (n.is_windowed(layer) ? 2 : 0);
}

void append(LayerCost& to, const LayerCost& from) {
  to.forward += from.forward;
  to.backward_input += from.backward_input;
  to.backward_weight += from.backward_weight;
  to.saved_bytes += from.saved_bytes;
  to.working_bytes = std::max(to.working_bytes, from.working_bytes);
}

double whole(const LayerCost& c) {
  return c.forward.total() + c.backward_input.total() + c.backward_weight.total();
}

int virtual_stages(const Layout& l) {
  if (l.pipeline == 1) return 1;
  if (l.schedule == ScheduleKind::dualpipe_v) return 2 * l.pipeline;
  return l.schedule == ScheduleKind::interleaved ? l.pipeline * l.chunks : l.pipeline;
}

std::vector<Stage> make_stages(const Kit& kit, const Setup& s) {
  const int stages = virtual_stages(s.layout);
  const double kinds[4] = {whole(kit.kinds[0]), whole(kit.kinds[1]), whole(kit.kinds[2]),
                           whole(kit.kinds[3])};
  std::vector<double> weights;
  if (s.network.layers % stages != 0)
    for (std::int64_t layer = 0; layer < s.network.layers; ++layer)
      weights.push_back(kinds[kind_of(s.network, layer)]);
  const std::vector<int> cut =
      split_layers(s.network.layers, stages, weights, whole(kit.embedding), whole(kit.head) + whole(kit.mtp));
  std::vector<Stage> result(stages);
  std::int64_t layer = 0;
  for (int i = 0; i < stages; ++i) {
    if (i == 0) append(result[i].cost, kit.embedding);
    result[i].layers = cut[i];
    for (int j = 0; j < cut[i]; ++j) append(result[i].cost, kit.kinds[kind_of(s.network, layer++)]);
    if (i == stages - 1) {
      append(result[i].cost, kit.mtp);
      append(result[i].cost, kit.head);
    }
  }
  return result;
}

// One send of a micro-batch between stages.
double send_seconds(const Setup& s, const Constants& k) {
  const Layout& l = s.layout;
  if (l.pipeline == 1) return 0;
  const double tokens = l.micro_batch * static_cast<double>(s.job.sequence) / l.context;
  const double split = l.sequence_parallel || s.software.split_sends ? l.tensor : 1;
  const bool inside = s.count <= s.chip.scaleup_domain;
  const double bandwidth = inside ? s.chip.scaleup * k[C::tensor_link] : s.chip.network * k[C::network_link];
  return tokens * static_cast<double>(s.network.hidden) * 2 / split / bandwidth + s.latency_network;
}

// Makespan of the schedule; long ones are extrapolated from their steady state, in which every further
// `ranks` micro-batches take the same time.
double pipeline_seconds(const Setup& s, const std::vector<StageCost>& stages, double send) {
  const Layout& l = s.layout;
  const std::int64_t m = s.micro_batches();
  if (l.pipeline == 1)
    return static_cast<double>(m) *
           (stages[0].forward + stages[0].backward_input + stages[0].backward_weight);
  const auto run = [&](std::int64_t count) {
    return simulate(make_schedule(l.schedule, l.pipeline, static_cast<int>(count), l.chunks), stages, send)
        .makespan;
  };
  const std::int64_t p = l.pipeline;
  if (m <= 5 * p) return run(m);
  const std::int64_t base = 3 * p + m % p;
  const double first = run(base), second = run(base + p);
  return second + (second - first) * static_cast<double>(m - base - p) / static_cast<double>(p);
}

// No schedule is faster: a rank starts when the first micro-batch has come through the stages before, does
// all its work, and (where backward passes are whole) the last micro-batch still goes back through those
// stages.
double pipeline_floor(const Setup& s, const std::vector<StageCost>& stages, double send) {
  const Layout& l = s.layout;
  const double m = static_cast<double>(s.micro_batches());
  const int parts = static_cast<int>(stages.size()) / l.pipeline;
  const Schedule shape{l.schedule, l.pipeline, parts, 1, {}};
  const bool whole_backward =
      l.schedule != ScheduleKind::zero_bubble && l.schedule != ScheduleKind::dualpipe_v;
  double head = 0, tail = 0, floor = 0;
  for (int rank = 0; rank < l.pipeline; ++rank) {
    double work = 0;
    for (int c = 0; c < parts; ++c) {
      const StageCost& stage = stages[l.pipeline == 1 ? c : shape.stage_of(rank, c)];
      work += stage.forward + stage.backward_input + stage.backward_weight;
    }
    floor = std::max(floor, head + m * work + tail);
    head += stages[rank].forward + send;
    if (whole_backward) tail += stages[rank].backward_input + stages[rank].backward_weight + send;
  }
  return floor;
}

void scale(PassCost& cost, double factor) {
  for (double& v : cost.seconds) v *= factor;
}

}  // namespace

std::vector<int> split_layers(std::int64_t layers, int stages, const std::vector<double>& weights,
                              double first_extra, double last_extra) {
  if (stages == 1) return {static_cast<int>(layers)};
  if (layers % stages == 0) return std::vector<int>(stages, static_cast<int>(layers / stages));
  if ((layers + 2) % stages == 0 && layers + 2 >= 2 * stages) {
    std::vector<int> cut(stages, static_cast<int>((layers + 2) / stages));
    --cut.front();
    --cut.back();
    return cut;
  }
  return balanced_cut(weights, stages, first_extra, last_extra);
}

Kit make_kit(const Setup& s, const Constants& k) {
  const Network& n = s.network;
  const Layout& l = s.layout;
  Kit kit;
  double counts[4] = {0, 0, 0, 0};
  for (std::int64_t layer = 0; layer < n.layers; ++layer) counts[kind_of(n, layer)] += 1;
  for (int i = 0; i < 4; ++i) {
    if (counts[i] == 0) continue;
    const bool moe = i % 2 == 1;
    kit.kinds[i] = layer_cost(s, k, moe ? FeedForward::moe : FeedForward::dense, i >= 2);
    kit.work += counts[i] * whole(kit.kinds[i]);
    const LayerParameters p = layer_parameters(n, moe);
    kit.dense_parameters +=
        counts[i] * ((p.attention + p.dense_ffn + p.shared) / l.tensor + p.norms + p.router);
    if (moe)
      kit.expert_parameters +=
          counts[i] * p.one_expert * static_cast<double>(n.experts) / l.expert / l.expert_tensor;
  }
  kit.embedding = embedding_cost(s, k);
  kit.head = head_cost(s, k);
  for (std::int64_t i = 0; i < n.mtp_layers; ++i) {
    append(kit.mtp, layer_cost(s, k, n.experts > 0 ? FeedForward::moe : FeedForward::dense, false));
    append(kit.mtp, kit.head);
  }
  kit.table_parameters = static_cast<double>(n.vocab * n.hidden) / l.tensor;
  kit.work += whole(kit.embedding) + whole(kit.head) + whole(kit.mtp);
  return kit;
}

// The layers' mean, and the table at an end of the pipeline (both on one rank without one).
RankParameters rank_parameters(const Kit& kit, const Setup& s) {
  const Layout& l = s.layout;
  RankParameters r{kit.dense_parameters / l.pipeline, kit.expert_parameters / l.pipeline};
  r.dense += kit.table_parameters * (l.pipeline == 1 && !s.network.tied ? 2 : 1);
  return r;
}

MemoryUse memory_floor(const Kit& kit, const Setup& s) {
  const Layout& l = s.layout;
  const RankParameters p = rank_parameters(kit, s);
  const int group = l.data * l.context;
  const double shard = l.shard_group > 0 ? std::min(l.shard_group, group) : group;
  const double expert_group = std::max(1, group * l.tensor / std::max(1, l.expert * l.expert_tensor));
  const double expert_shard = std::min(expert_group, shard);
  const auto sharded = [&](double bytes, int from) {
    return l.zero >= from ? bytes * (p.dense / shard + p.expert / expert_shard)
                          : bytes * (p.dense + p.expert);
  };
  const bool plain = s.job.precision == Precision::fp32;
  MemoryUse m;
  m.weights = sharded(plain ? 4 : 2, 3);
  // With fp32 accumulation the bf16 gradients are there too.
  const bool both = s.software.gradient_bytes > 2 && !s.software.fp32_gradients_only;
  m.gradients = sharded(plain || s.software.fp32_gradients_only ? 4 : both ? 6 : 2, 2);
  const double moments = s.job.optimizer == OptimizerKind::muon ? 4 : 8;
  m.optimizer = l.offload ? 0 : sharded(moments + (plain ? 0 : 4), 1);
  double saved = kit.head.saved_bytes + kit.mtp.saved_bytes, working = kit.mtp.working_bytes;
  for (std::int64_t layer = 0; layer < s.network.layers; ++layer) {
    const LayerCost& kind = kit.kinds[kind_of(s.network, layer)];
    saved += kind.saved_bytes;
    working = std::max(working, kind.working_bytes);
  }
  m.activations = fragmentation * (saved / l.pipeline + working);
  const double tokens = l.micro_batch * static_cast<double>(s.job.sequence) / l.context;
  m.buffers = 2 * tokens * static_cast<double>(s.network.hidden) * 2 * 4;
  if (l.zero >= 3) {
    const double layers = static_cast<double>(s.network.layers) / l.pipeline;
    m.buffers += 2 * 2 * (p.dense + p.expert) / std::max(1.0, layers);
  }
  // CUDA context, libraries, collectives' own buffers; on a CPU what the program takes before its first
  // tensor.
  m.runtime = s.chip.family == "cpu" ? 0.26e9 : 5e9;
  return m;
}

MemoryUse predict_memory(const Kit& kit, const Setup& s, const Constants&) {
  const Layout& l = s.layout;
  MemoryUse m = memory_floor(kit, s);
  if (l.pipeline == 1) return m;
  const std::vector<Stage> stages = make_stages(kit, s);
  std::vector<StageCost> costs;
  double working = 0;
  for (const Stage& stage : stages) {
    costs.push_back({1, 1, 1, stage.cost.saved_bytes, stage.cost.saved_bytes});
    working = std::max(working, stage.cost.working_bytes);
  }
  const auto count = static_cast<int>(std::min<std::int64_t>(s.micro_batches(), 3 * l.pipeline));
  const std::vector<double> peaks =
      peak_activations(make_schedule(l.schedule, l.pipeline, count, l.chunks), costs);
  m.activations = fragmentation * (*std::max_element(peaks.begin(), peaks.end()) + working);
  return m;
}

MemoryUse predict_memory(const Setup& s, const Constants& k) { return predict_memory(make_kit(s, k), s, k); }

std::vector<StageCost> stage_costs(const Setup& s, const Constants& k) {
  std::vector<StageCost> costs;
  const double send = send_seconds(s, k);
  const double block =
      s.layout.pipeline > 1 ? send * k[C::pipeline_blocking] * (s.software.overlap_pipeline ? 0.2 : 1) : 0;
  for (const Stage& stage : make_stages(make_kit(s, k), s))
    costs.push_back({stage.cost.forward.total() + block, stage.cost.backward_input.total() + block,
                     stage.cost.backward_weight.total(), stage.cost.saved_bytes, stage.cost.saved_bytes});
  return costs;
}

namespace {

StepPrediction assemble(const Kit& kit, const Setup& s, const Constants& k, bool floor) {
  const Layout& l = s.layout;
  const std::vector<Stage> stages = make_stages(kit, s);
  const double send = send_seconds(s, k);
  const double block =
      l.pipeline > 1 ? send * k[C::pipeline_blocking] * (s.software.overlap_pipeline ? 0.2 : 1) : 0;
  const RankParameters p = rank_parameters(kit, s);
  // Of one micro-batch on the busiest rank.
  const int parts = static_cast<int>(stages.size()) / l.pipeline;
  PassCost busiest;
  double forward = 0, backward = 0, most = -1;
  const Schedule shape{l.schedule, l.pipeline, std::max(1, parts), 1, {}};
  for (int rank = 0; rank < l.pipeline; ++rank) {
    LayerCost mine;
    for (int c = 0; c < parts; ++c) append(mine, stages[l.pipeline == 1 ? c : shape.stage_of(rank, c)].cost);
    if (whole(mine) <= most) continue;
    most = whole(mine);
    forward = mine.forward.total();
    backward = mine.backward_input.total() + mine.backward_weight.total();
    busiest = mine.forward;
    busiest += mine.backward_input;
    busiest += mine.backward_weight;
  }
  const bool sharded = l.zero >= 3;
  const DataTraffic data = l.data * l.context == 1 ? DataTraffic{}
                           : sharded               ? sharded_traffic(s, k, p, forward, backward)
                                                   : replicated_traffic(s, k, p, forward, backward);
  std::vector<StageCost> costs;
  for (const Stage& stage : stages) {
    const double each = data.each / parts / 2;
    costs.push_back({stage.cost.forward.total() * data.slow_down + block + each,
                     stage.cost.backward_input.total() * data.slow_down + block + each,
                     stage.cost.backward_weight.total() * data.slow_down, 0, 0});
  }
  // The extrapolation of a long pipeline may start before its slowest rank is always busy: never below the
  // floor.
  const double least = pipeline_floor(s, costs, send);
  const double makespan =
      (floor ? least : std::max(least, pipeline_seconds(s, costs, send))) * s.batch_ratio();
  const double m = static_cast<double>(s.micro_batches()) * s.batch_ratio();
  StepPrediction r;
  r.time.work = busiest;
  scale(r.time.work, m);
  r.time.data = data.shown + m * (data.each + busiest.total() * (data.slow_down - 1));
  r.time.bubble = std::max(
      0.0, makespan - r.time.work.total() - m * (data.each + busiest.total() * (data.slow_down - 1)));
  r.time.optimizer = update_seconds(s, k, p);
  const double busy = makespan + data.shown + r.time.optimizer;
  const double nodes = std::max(1.0, static_cast<double>(s.count) / std::max(1, s.chip.per_node));
  r.time.other = busy * k[C::straggler] * std::log2(nodes) + k[C::step_seconds] + s.extra_step;
  r.time.other += (busy + r.time.other) * (1 / s.software.goodput - 1);
  r.seconds = busy + r.time.other;
  r.bubble_share = r.time.bubble / r.seconds;
  r.tokens_per_second = static_cast<double>(s.job.global_batch * s.job.sequence) / r.seconds;
  r.model_flops = model_flops_per_token(s.network, s.job.sequence) *
                  static_cast<double>(s.job.global_batch * s.job.sequence);
  if (s.chip.bf16 > 0) r.mfu = r.model_flops / r.seconds / (s.chip.bf16 * s.count);
  return r;
}

}  // namespace

StepPrediction predict_step(const Kit& kit, const Setup& s, const Constants& k) {
  return assemble(kit, s, k, false);
}
StepPrediction predict_step(const Setup& s, const Constants& k) {
  return assemble(make_kit(s, k), s, k, false);
}
double step_floor(const Kit& kit, const Setup& s, const Constants& k) {
  return assemble(kit, s, k, true).seconds * (1 - 1e-9);
}

}  // namespace sinew::plan
