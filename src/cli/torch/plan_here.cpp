#include "cli/plan_here.hpp"

#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "base/threads.hpp"
#include "kernels/matmul_peak.hpp"
#include "plan/here.hpp"
#include "train/check_runs.hpp"
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

void check_here(int steps, const std::string& only, bool json) {
  const plan::Accelerator here = machine();
  int within = 0, all = 0;
  double sum = 0, worst = 0;
  if (!json)
    fmt::print("{:<20}{:<34}{:>13}{:>13}{:>13}{:>8}\n", "model", "shape", "predicted ms", "measured ms",
               "best - worst", "error");
  for (const CheckRun& run : check_runs()) {
    if (!only.empty() && run.name.find(only) == std::string::npos) continue;
    const CheckedRun c = check_run(run, steps, [&](const StepParts& parts) {
      return plan::predict_here(here, run_of(run.name, run.model, run.shape), parts).seconds;
    });
    const double error = c.predicted / c.measured - 1;
    ++all;
    within += std::abs(error) <= 0.1;
    sum += std::abs(error);
    worst = std::max(worst, std::abs(error));
    if (json) {
      fmt::print("{}\n", Json{{"run", run.name},
                              {"shape", shape_text(run.shape)},
                              {"predicted_s", c.predicted},
                              {"measured_s", c.measured},
                              {"measured_best_s", c.best},
                              {"measured_worst_s", c.worst},
                              {"error", error}}
                             .dump());
    } else {
      fmt::print("{:<20}{:<34}{:>13.1f}{:>13.1f}{:>7.0f} - {:<5.0f}{:>5.1f} %\n", run.name,
                 shape_text(run.shape), 1e3 * c.predicted, 1e3 * c.measured, 1e3 * c.best, 1e3 * c.worst,
                 100 * error);
    }
    std::fflush(stdout);
  }
  require(all > 0, "plan --here --check: no run named like '{}'", only);
  if (!json)
    fmt::print("{} of {} runs within 10 %; mean error {:.1f} %, worst {:.1f} %\n", within, all,
               100 * sum / all, 100 * worst);
}

double planned_step(const TrainingSetup& setup) {
  const auto& t = setup.config.train;
  const std::int64_t micro = t.micro_batch > 0 ? t.micro_batch : t.batch;
  if (!setup.device.is_cpu() || setup.mesh || t.batch % micro != 0) return 0;
  RunShape shape;
  shape.micro = {micro, setup.config.data.sequence, setup.dtype};
  shape.micro_batches = t.batch / micro;
  shape.recompute = t.recompute == "full" ? Recompute::full : Recompute::none;
  const StepParts parts = bench_parts(setup.model, shape.micro, setup.config.optimizer, 0.5);
  // Everything that takes time was measured: the machine's rates do not matter.
  return plan::predict_here(plan::this_machine(1e12, 1e12, 1e10), run_of("", setup.model, shape), parts)
      .seconds;
}

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
