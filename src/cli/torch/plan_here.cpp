#include "cli/plan_here.hpp"

#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "base/machine.hpp"
#include "base/text.hpp"
#include "base/threads.hpp"
#include "cli/torch/ranks.hpp"
#include "comm/rendezvous.hpp"
#include "kernels/matmul_peak.hpp"
#include "plan/here.hpp"
#include "plan/here_ranks.hpp"
#include "train/check_runs.hpp"
#include "train/measured_parts.hpp"
#include "train/setup.hpp"

namespace sinew::cli {
namespace {

using Json = nlohmann::ordered_json;

plan::Accelerator machine() {
  at::set_num_threads(default_threads());
  const MatmulPeak peak = matmul_peak();
  return plan::this_machine(peak.fp32, peak.bf16, plan::measure_memory_bandwidth());
}

plan::HereRun run_of(const std::string& name, const ModelConfig& model, const RunShape& shape) {
  plan::HereRun run;
  run.network = plan::network_from(model, name);
  run.job.sequence = shape.micro.tokens;
  run.job.global_batch = shape.micro.rows * shape.micro_batches;
  run.job.precision = shape.micro.type == at::kBFloat16 ? plan::Precision::bf16 : plan::Precision::fp32;
  run.layout.zero = 0;
  run.layout.micro_batch = static_cast<int>(shape.micro.rows);
  run.layout.recompute.full = shape.recompute == Recompute::full;
  return run;
}

std::string shape_text(const RunShape& s) {
  return fmt::format("{} {} x {}{}{}", s.micro.type == at::kBFloat16 ? "bf16" : "fp32", s.micro.rows,
                     s.micro.tokens,
                     s.micro_batches > 1 ? fmt::format(" x {} micro-batches", s.micro_batches) : "",
                     s.recompute == Recompute::full ? ", recomputed" : "");
}

std::vector<std::pair<std::string, PartSeconds>> named(const StepParts& p) {
  return {{"attention", p.attention},      {"norms and residuals", p.norms},
          {"dense feed-forward", p.dense}, {"experts", p.moe},
          {"embedding", p.embedding},      {"head and loss", p.head},
          {"multi-token join", p.mtp_join}};
}

void print_parts(const StepParts& p) {
  fmt::print("{:<22}{:>12}{:>13}\n", "operation, one layer", "forward ms", "backward ms");
  for (const auto& [name, part] : named(p))
    if (part.forward > 0)
      fmt::print("{:<22}{:>12.2f}{:>13.2f}\n", name, 1e3 * part.forward, 1e3 * part.backward);
  fmt::print("{:<22}{:>12.2f}\n", "update, whole step", 1e3 * p.update);
}

}  // namespace

namespace {

class CheckTable {
 public:
  CheckTable(bool speaks, bool json) : speaks_(speaks), json_(json) {
    if (speaks_ && !json_)
      fmt::print("{:<20}{:<40}{:>13}{:>13}{:>13}{:>8}\n", "model", "shape", "predicted ms", "measured ms",
                 "best - worst", "error");
  }
  void row(const CheckRun& run, const CheckedRun& c) {
    const double error = c.predicted / c.measured - 1;
    ++all_;
    within_ += std::abs(error) <= 0.1;
    sum_ += std::abs(error);
    worst_ = std::max(worst_, std::abs(error));
    if (!speaks_) return;
    const std::string layout = run.layout.size() > 1 ? ", " + layout_name(run.layout) : "";
    if (json_) {
      fmt::print("{}\n", Json{{"run", run.name},
                              {"shape", shape_text(run.shape)},
                              {"layout", layout_name(run.layout)},
                              {"predicted_s", c.predicted},
                              {"measured_s", c.measured},
                              {"measured_best_s", c.best},
                              {"measured_worst_s", c.worst},
                              {"error", error}}
                             .dump());
    } else {
      fmt::print("{:<20}{:<40}{:>13.1f}{:>13.1f}{:>7.0f} - {:<5.0f}{:>5.1f} %\n", run.name,
                 shape_text(run.shape) + layout, 1e3 * c.predicted, 1e3 * c.measured, 1e3 * c.best,
                 1e3 * c.worst, 100 * error);
    }
    std::fflush(stdout);
  }
  void end() const {
    if (speaks_ && !json_)
      fmt::print("{} of {} runs within 10 %; mean error {:.1f} %, worst {:.1f} %\n", within_, all_,
                 100 * sum_ / all_, 100 * worst_);
  }

 private:
  bool speaks_, json_;
  int within_ = 0, all_ = 0;
  double sum_ = 0, worst_ = 0;
};

bool is_wanted(const CheckRun& run, const std::string& only) {
  return only.empty() || run.name.find(only) != std::string::npos ||
         layout_name(run.layout).find(only) != std::string::npos;
}

// Those whose names or layouts have `only` in them.
std::vector<CheckRun> wanted(std::vector<CheckRun> runs, const std::string& only) {
  std::erase_if(runs, [&](const CheckRun& run) { return !is_wanted(run, only); });
  require(!runs.empty(), "plan --here --check: no run or layout named like '{}'", only);
  return runs;
}

// What a run on several processes works on, as the planner wants it.
plan::RanksRun ranks_run(const ModelConfig& model, const RunShape& shape, const Layout& layout) {
  plan::RanksRun run{.model = model, .layout = layout, .work = {}, .cores = this_machine().cores};
  run.work.rows = shape.micro.rows;
  run.work.sequence = shape.micro.tokens;
  run.work.micro_batches = shape.micro_batches;
  run.work.bf16 = shape.micro.type == at::kBFloat16;
  run.work.recompute = shape.recompute == Recompute::full;
  return run;
}

// One of the processes that --ranks started.
struct Rank {
  explicit Rank(const Launch& launch) : rendezvous((share_cores(launch), launch), 60) {
    EndpointOptions options;
    options.rank = launch.rank;
    options.size = launch.size;
    endpoint = rendezvous.connect(options);
  }
  Rendezvous rendezvous;
  std::shared_ptr<Endpoint> endpoint;
};

Layout checked(Layout layout, const ModelConfig& model, const RunShape& shape, std::int64_t processes) {
  layout.data = 0;
  const std::int64_t others = layout.shard * layout.row_size() * layout.pipeline;
  const std::int64_t replicas = layout.shard * std::max<std::int64_t>(1, processes / others);
  const std::int64_t micro = shape.micro.rows * replicas;
  return check_layout(layout,
                      {.processes = processes,
                       .batch = micro * shape.micro_batches,
                       .micro_batch = micro,
                       .sequence = shape.micro.tokens},
                      model);
}

void check_ranks(const Launch& launch, int steps, const std::string& only, bool json) {
  Rank rank(launch);
  CheckTable table(launch.rank == 0, json);
  for (const CheckRun& run : wanted(layout_check_runs(launch.size), only)) {
    const Layout layout = checked(run.layout, run.model, run.shape, launch.size);
    const auto mesh = std::make_shared<Mesh>(rank.endpoint, layout);
    auto planned = ranks_run(run.model, run.shape, layout);
    planned.work.stop_signal = false;
    table.row(run, check_run(
                       run, steps,
                       [&](const StepParts& parts, const StepLinks& links) {
                         return plan::predict_ranks(planned, parts, links).seconds;
                       },
                       mesh));
  }
  table.end();
}

}  // namespace

void check_here(int ranks, int steps, const std::string& only, bool json) {
  if (const auto launch = read_launch(); launch && launch->size > 1)
    return check_ranks(*launch, steps, only, json);
  if (ranks > 1) {
    wanted(layout_check_runs(ranks), only);  // says what is wrong once
    return run_as_ranks(ranks);
  }
  const plan::Accelerator here = machine();
  CheckTable table(true, json);
  for (const CheckRun& run : wanted(check_runs(), only)) {
    table.row(run, check_run(run, steps, [&](const StepParts& parts, const StepLinks&) {
                return plan::predict_here(here, run_of(run.name, run.model, run.shape), parts).seconds;
              }));
  }
  table.end();
}

double planned_step(const TrainingSetup& setup) {
  const auto& t = setup.config.train;
  const std::int64_t micro = t.micro_batch > 0 ? t.micro_batch : t.batch;
  if (!setup.device.is_cpu() || t.batch % micro != 0) return 0;
  const std::int64_t replicas = setup.mesh ? setup.mesh->layout().replicas() : 1;
  RunShape shape;
  shape.micro = {micro / replicas, setup.config.data.sequence, setup.dtype};
  shape.micro_batches = t.batch / micro;
  shape.recompute = t.recompute == "full" ? Recompute::full : Recompute::none;
  const auto mesh = setup.mesh && setup.mesh->size() > 1 ? setup.mesh : nullptr;
  const MeasuredParts measured =
      measured_parts(setup.model, shape.micro, setup.config.optimizer, mesh, parts_folder());
  if (mesh)
    return plan::predict_ranks(ranks_run(setup.model, shape, mesh->layout()), measured.parts, measured.links)
        .seconds;
  // Everything that takes time was measured: the machine's rates do not matter.
  return plan::predict_here(plan::this_machine(1e12, 1e12, 1e10), run_of("", setup.model, shape),
                            measured.parts)
      .seconds;
}

double planned_memory(const ModelConfig& model, const RunShape& shape) {
  // Rates do not matter to memory.
  return plan::predict_here(plan::this_machine(1e12, 1e12, 1e10), run_of("", model, shape)).memory.total();
}

namespace {

// "tensor=2 expert=2"
Layout layout_of(const std::string& text) {
  RunConfig config;
  for (const std::string& word : split(text, ' '))
    if (!word.empty()) apply_set(config, "layout." + word);
  return config.layout;
}

Layout layout_of(const HereOptions& o, const ModelConfig& model, const RunShape& shape) {
  Layout layout = layout_of(o.layout);
  return check_layout(layout,
                      {.processes = o.ranks,
                       .batch = o.batch,
                       .micro_batch = shape.micro.rows,
                       .sequence = shape.micro.tokens},
                      model);
}

void plan_ranks(const Launch& launch, const HereOptions& o, const ModelConfig& model, RunShape shape) {
  Rank rank(launch);
  const Layout layout = layout_of(o, model, shape);
  shape.micro.rows /= layout.replicas();
  const auto mesh = std::make_shared<Mesh>(rank.endpoint, layout);
  const StepLinks links = bench_links(model, shape.micro, mesh);
  const StepParts parts = bench_parts(model, shape.micro, RunConfig::Optimizer{}, 1, mesh);
  const plan::RanksRun run = ranks_run(model, shape, layout);
  const plan::RanksPrediction p = plan::predict_ranks(run, parts, links);
  if (launch.rank != 0) return;
  const double tokens = static_cast<double>(o.batch * o.sequence) / p.seconds;
  if (o.json) {
    Json rates;
    for (const auto& [key, rate] : links)
      rates.push_back({{"group", key.first},
                       {"operation", key.second},
                       {"start_s", rate.start},
                       {"s_per_byte", rate.per_byte}});
    return fmt::print("{}\n", Json{{"model", o.model},
                                   {"shape", shape_text(shape)},
                                   {"processes", launch.size},
                                   {"layout", layout_name(layout)},
                                   {"links", rates},
                                   {"step_time_s", p.seconds},
                                   {"micro_batches_s", p.pipeline},
                                   {"state_s", p.state},
                                   {"update_s", p.update},
                                   {"sums_s", p.sums},
                                   {"bubble_share", p.bubble},
                                   {"sent_bytes", p.sent},
                                   {"tokens_per_s", tokens}}
                                  .dump(1));
  }
  fmt::print("{} processes on {} cores: {}\n\n", launch.size, this_machine().cores, layout_name(layout));
  print_parts(parts);
  fmt::print("\n{:<40}{:>10}{:>12}\n", "what processes say to each other", "start us", "then GB/s");
  for (const auto& [key, rate] : links)
    fmt::print("{:<40}{:>10.0f}{:>12}\n", key.first + " " + key.second, 1e6 * rate.start,
               rate.per_byte > 0 ? fmt::format("{:.2f}", 1e-9 / rate.per_byte) : "");
  fmt::print(
      "\n{}, {}: {:.3f} s a step, {:.0f} tokens/s; micro-batches {:.3f} s ({:.1f} % of it waiting in the "
      "pipeline), gradients and weights {:.3f} s, update {:.3f} s; a process sends {}\n",
      o.model, shape_text(shape), p.seconds, tokens, p.pipeline, 100 * p.bubble, p.state, p.update,
      human_bytes(p.sent));
}

}  // namespace

void plan_here(const HereOptions& o) {
  const ModelConfig model = load_model_config(o.model);
  require(o.precision == "fp32" || o.precision == "bf16",
          "plan --here: the trainer computes in fp32 or bf16, not {}", o.precision);
  require(o.sequence <= model.max_position_embeddings, "plan --here: sequence {} is over the model's {}",
          o.sequence, model.max_position_embeddings);
  RunShape shape;
  const std::int64_t micro = o.micro_batch > 0 ? o.micro_batch : o.batch;
  require(o.batch % micro == 0, "plan --here: batch {} does not divide by micro-batch {}", o.batch, micro);
  shape.micro = {micro, o.sequence, o.precision == "bf16" ? at::kBFloat16 : at::kFloat};
  shape.micro_batches = o.batch / micro;
  shape.recompute = o.recompute == "full" ? Recompute::full : Recompute::none;
  if (const auto launch = read_launch(); launch && launch->size > 1)
    return plan_ranks(*launch, o, model, shape);
  require(o.ranks > 1 || o.layout.empty(), "plan --here: --layout is of several processes: add --ranks");
  if (o.ranks > 1) {
    layout_of(o, model, shape);  // says what is wrong once
    return run_as_ranks(o.ranks);
  }
  const plan::Accelerator here = machine();
  const StepParts parts = bench_parts(model, shape.micro, RunConfig::Optimizer{});
  const plan::HereRun run = run_of(o.model, model, shape);
  const plan::StepPrediction p = plan::predict_here(here, run, parts);
  if (o.json) {
    Json parts_json;
    for (const auto& [name, part] : named(parts))
      if (part.forward > 0) parts_json[name] = {{"forward_s", part.forward}, {"backward_s", part.backward}};
    parts_json["update"] = {{"step_s", parts.update}};
    return fmt::print("{}\n", Json{{"model", o.model},
                                   {"shape", shape_text(shape)},
                                   {"fp32_flops", here.fp32},
                                   {"bf16_flops", here.bf16},
                                   {"memory_bytes_per_s", here.memory_bandwidth},
                                   {"operations", parts_json},
                                   {"step_time_s", p.seconds},
                                   {"tokens_per_s", p.tokens_per_second},
                                   {"mfu", p.mfu},
                                   {"memory_bytes", p.memory.total()},
                                   {"fits", p.fits}}
                                  .dump(1));
  }
  fmt::print("this machine: products {:.0f} GFLOP/s fp32, {:.0f} bf16; memory {:.1f} GB/s, {:.1f} GB\n\n",
             here.fp32 / 1e9, here.bf16 / 1e9, here.memory_bandwidth / 1e9, here.memory_bytes / 1e9);
  print_parts(parts);
  fmt::print("\n{}, {}: {:.3f} s a step, {:.0f} tokens/s, {:.1f} % of the product rate; {:.2f} GB{}\n",
             o.model, shape_text(shape), p.seconds, p.tokens_per_second, 100 * p.mfu, p.memory.total() / 1e9,
             p.fits ? "" : ": does not fit");
}

}  // namespace sinew::cli
