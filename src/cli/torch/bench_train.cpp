#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "base/files.hpp"
#include "base/text.hpp"
#include "base/threads.hpp"
#include "cli/commands.hpp"
#include "cli/plan_here.hpp"
#include "kernels/isa.hpp"
#include "kernels/matmul_peak.hpp"
#include "ops/gemm_peak.hpp"
#include "train/layout_table.hpp"
#include "train/part_bench.hpp"
#include "train/step_bench.hpp"

namespace sinew::cli {
namespace {

using Json = nlohmann::ordered_json;

struct Options {
  std::vector<std::string> presets{"S", "M"};
  std::vector<std::string> types{"bf16", "fp32"};
  std::int64_t steps = 5, warmup = 2, tokens = 0, experts = 0;
  bool json = false, routing = true, layer_only = false;
};

std::string bar(double share) {
  return std::string(static_cast<std::size_t>(std::clamp(share, 0.0, 1.0) * 40 + 0.5), '#');
}

void print_row(std::string_view name, double forward, double backward, double step) {
  const double sum = forward + backward;
  fmt::print("  {:<22}{:>9.1f}{:>9.1f}  {:>5.1f} %  {}\n", name, 1e3 * forward, 1e3 * backward,
             100 * sum / step, bar(sum / step));
}

void print_breakdown(const StepTimes& t) {
  double forward = 0, backward = 0;
  const double step = t.forward + t.backward + t.optimizer;
  fmt::print("  {:<22}{:>9}{:>9}\n", "", "fwd ms", "bwd ms");
  for (std::size_t i = 0; i < t.operations.seconds.size(); ++i) {
    const auto& pair = t.operations.seconds[i];
    forward += pair.forward;
    backward += pair.backward;
    if (pair.forward > 0) print_row(kOpNames[i], pair.forward, pair.backward, step);
  }
  print_row("other", t.forward - forward, t.backward - backward, step);
  print_row("norm and optimizer", t.optimizer, 0, step);
}

Json routing_json(const RoutingTimes& r) {
  return {{"ratio", r.ratio.median},
          {"ratio_least", r.ratio.least},
          {"ratio_greatest", r.ratio.greatest},
          {"ratio_half_to_one", r.skewed_ratio.median},
          {"moe_s", r.moe.median},
          {"moe_s_best", r.moe.least},
          {"dense_s", r.dense.median}};
}

void print_routing(const RoutingTimes& r) {
  fmt::print("  routing overhead {}; {} with one expert on half of the tokens\n", range_text(r.ratio, 1, 2),
             range_text(r.skewed_ratio, 1, 2));
}

// A layer without a network around it: for numbers of experts whose network would not fit.
void run_layer(const Options& o, const BenchPreset& preset, const std::string& type) {
  const auto dtype = type == "bf16" ? at::kBFloat16 : at::kFloat;
  const RoutingTimes r = bench_routing(preset, dtype, std::max<std::int64_t>(o.steps, 3));
  if (o.json) {
    const Json line{{"bench", "layer"},
                    {"preset", preset.name},
                    {"dtype", type},
                    {"isa", isa_name(active_isa())},
                    {"threads", default_threads()},
                    {"routing_overhead", routing_json(r)}};
    fmt::print("{}\n", line.dump());
  } else {
    fmt::print("{} {}: MoE layer {:.1f} ms (best {:.1f}), dense layer of equal work {:.1f} ms\n", preset.name,
               type, 1e3 * r.moe.median, 1e3 * r.moe.least, 1e3 * r.dense.median);
    print_routing(r);
  }
  std::fflush(stdout);
}

void run_one(const Options& o, const BenchPreset& preset, const std::string& type) {
  const bool narrow = type == "bf16";
  const auto dtype = narrow ? at::kBFloat16 : at::kFloat;
  const double own_peak = narrow ? matmul_peak().bf16 : matmul_peak().fp32;
  const StepTimes t = bench_steps(preset, dtype, o.warmup, o.steps);
  const double tokens_per_s = static_cast<double>(t.tokens) / t.seconds.median,
               rate = t.flops / t.seconds.median, peak = t.peak.greatest;
  const double planned = planned_memory(preset.model, RunShape{.micro = {preset.rows, preset.tokens, dtype}});
  Json line{{"bench", "train"},
            {"preset", preset.name},
            {"dtype", type},
            {"isa", isa_name(active_isa())},
            {"threads", default_threads()},
            {"parameters", t.parameters},
            {"tokens_per_step", t.tokens},
            {"flops_per_step", t.flops},
            {"step_s_best", t.seconds.least},
            {"step_s_median", t.seconds.median},
            {"step_s_worst", t.seconds.greatest},
            {"tokens_per_s", tokens_per_s},
            {"gflops", rate / 1e9},
            {"peak_gflops", peak / 1e9},
            {"mfu", t.utilisation.median},
            {"mfu_least", t.utilisation.least},
            {"mfu_greatest", t.utilisation.greatest},
            {"mfu_of_best_peak", rate / peak},
            {"own_peak_gflops", own_peak / 1e9},
            {"peak_rss_bytes", t.peak_bytes},
            {"planned_bytes", planned},
            {"page_faults_per_step", t.page_faults},
            {"loss", t.loss}};
  Json classes;
  for (std::size_t i = 0; i < t.operations.seconds.size(); ++i)
    classes[std::string(kOpNames[i])] = {{"forward_s", t.operations.seconds[i].forward},
                                         {"backward_s", t.operations.seconds[i].backward}};
  line["seconds"] = {
      {"forward", t.forward}, {"backward", t.backward}, {"optimizer", t.optimizer}, {"classes", classes}};
  RoutingTimes r;
  const bool routed = o.routing && preset.model.moe.n_routed_experts > 0;
  if (routed) {
    r = bench_routing(preset, dtype, std::max<std::int64_t>(o.steps, 3));
    line["routing_overhead"] = routing_json(r);
  }
  if (o.json) {
    fmt::print("{}\n", line.dump());
    std::fflush(stdout);
    return;
  }
  fmt::print(
      "{} {}: {:.0f} tokens/s, {} % of libtorch's matrix product beside each step, "
      "{:.1f} % of its best, {:.0f} GFLOP/s, {:.1f} % of the {:.0f} of our own\n",
      preset.name, type, tokens_per_s, range_text(t.utilisation, 0.01, 1), 100 * rate / peak, peak / 1e9,
      100 * rate / own_peak, own_peak / 1e9);
  fmt::print(
      "  step {:.3f} s (best {:.3f}, worst {:.3f}), {:.1f} M parameters, peak memory {:.2f} GiB (planner "
      "{:.2f}), "
      "{} page faults a step, {} threads, {}\n",
      t.seconds.median, t.seconds.least, t.seconds.greatest, static_cast<double>(t.parameters) / 1e6,
      static_cast<double>(t.peak_bytes) / (1 << 30), planned / (1 << 30), t.page_faults, default_threads(),
      isa_name(active_isa()));
  print_breakdown(t);
  if (routed) print_routing(r);
}

void run(const Options& o) {
  std::vector<BenchPreset> presets;
  for (const auto& name : o.presets) {
    presets.push_back(bench_preset(name));
    vary_preset(presets.back(), o.tokens, o.experts);
  }
  for (const auto& type : o.types)
    require(type == "bf16" || type == "fp32", "--dtype is bf16 or fp32, not {}", type);
  for (const auto& preset : presets)
    for (const auto& type : o.types) (o.layer_only ? run_layer : run_one)(o, preset, type);
}

struct LayoutOptions {
  std::vector<std::string> models;
  std::vector<std::size_t> cases;
  std::int64_t steps = 20, seed = 0;
  std::string out = "out/layouts", device = "cpu";
  bool list = false;
};

void run_layouts(const LayoutOptions& o) {
  const auto& cases = layout_cases();
  for (std::size_t i = 0; o.list && i < cases.size(); ++i)
    fmt::print("{:>3}  {} processes  {}\n", i, cases[i].processes, join(cases[i].layout, " "));
  if (o.list) return;
  for (const auto& model : o.models)
    require(std::find(layout_models().begin(), layout_models().end(), model) != layout_models().end(),
            "--model is one of {}, not {}{}", join(layout_models(), ", "), model,
            did_you_mean(model, layout_models()));
  for (const std::size_t i : o.cases)
    require(i < cases.size(), "--case is a number below {}: --list shows them", cases.size());
  LayoutTableOptions options{.program = fs::read_symlink("/proc/self/exe"),
                             .out = o.out,
                             .models = o.models.empty() ? layout_models() : o.models,
                             .cases = o.cases,
                             .steps = o.steps,
                             .seed = o.seed,
                             .device = o.device};
  const std::size_t all = options.models.size() * (o.cases.empty() ? cases.size() : o.cases.size());
  std::size_t done = 0, same = 0;
  const auto rows = layout_table(options, [&](const LayoutRow& row) {
    same += row.same() ? 1 : 0;
    fmt::print(stderr, "{:>3}/{}  {}, {} processes, {}: {}\n", ++done, all, row.model, row.processes,
               row.layout,
               !row.problem.empty() ? row.problem
                                    : fmt::format("losses {:.1e}, parameters {:.1e}{}", row.loss_difference,
                                                  row.parameter_difference, row.same() ? "" : "  DIFFERS"));
  });
  fmt::print("{}", layout_markdown(rows, o.steps));
  if (same != rows.size())
    throw Error(
        fmt::format("{} of {} layouts do not train as one process does", rows.size() - same, rows.size()));
}

void add_layouts(Command bench) {
  auto options = std::make_shared<LayoutOptions>();
  Command command = bench.add_subcommand(
      "layouts",
      "Train tiny networks in many layouts; their losses and weights must be those of one process");
  command.footer(
      "Prints a table in Markdown and fails when a loss differs by over 1e-5 (relative) or a weight by over "
      "1e-4.\n\n"
      "Examples:\n"
      "  sinew bench layouts > layouts.md\n"
      "  sinew bench layouts --list\n"
      "  sinew bench layouts --model mixtral --case 5 --case 10");
  command.add_option("--model", options->models, "deepseek-v2, deepseek-v3 or mixtral (default all)");
  command.add_option("--case", options->cases, "Number of a layout, as --list has it (default all)");
  command.add_option("--steps", options->steps, "Steps of each run (default 20)").range(1, 100000);
  command
      .add_option("--seed", options->seed,
                  "Of weights and data (default 0: one for each model at which no two experts tie)")
      .range(0, 1 << 30);
  command.add_option("--out", options->out, "Folder of the runs (default out/layouts)");
  command.add_option("--device", options->device,
                     "Of the layouts, cpu or cuda; what they are held against runs on the CPU (default cpu)");
  command.add_flag("--list", options->list, "Print the layouts and their numbers");
  command.callback([options] { run_layouts(*options); });
}

}  // namespace

void add_bench_train(Command bench) {
  auto options = std::make_shared<Options>();
  Command command =
      bench.add_subcommand("train", "Training steps: tokens/s, utilisation, memory, where time goes");
  command.footer(
      "Utilisation is the model's FLOPs (6 x active matrix parameters and causal attention) over the time\n"
      "of a step, against products of 2048^3 of libtorch (oneDNN, OpenBLAS) right after it in the same\n"
      "process: the median, least and greatest of the steps. Beside it the median step against the best of\n"
      "all such products, and against our own kernels', which on AMX multiply fp32 in six products of bf16.\n"
      "Set SINEW_THREADS and SINEW_ISA to choose threads and instructions, SINEW_OPS=aten to compose every\n"
      "operation of libtorch's.\n\n"
      "Examples:\n"
      "  sinew bench train --preset M --dtype bf16\n"
      "  sinew bench train --preset S --preset gpt2 --steps 10 --json");
  command.add_option("--preset", options->presets, "S, M, gpt2, long or tiny (default S and M)");
  command.add_option("--dtype", options->types, "bf16 or fp32 (default both)");
  command
      .add_option("--tokens", options->tokens, "Length of a row instead of the preset's, rows in proportion")
      .range(1, 1 << 20);
  command.add_option("--experts", options->experts, "Experts to choose from instead of the preset's")
      .range(1, 4096);
  command.add_option("--steps", options->steps, "Measured steps (default 5)").range(1, 1000000);
  command.add_option("--warmup", options->warmup, "Steps before them (default 2)").range(0, 1000000);
  command.add_flag("--json", options->json, "One JSON line a measurement");
  command.add_flag("!--no-routing", options->routing,
                   "Leave out the comparison of an MoE layer with a dense one");
  command.add_flag("--layer-only", options->layer_only, "Only that comparison, without a network around it");
  command.callback([options] { run(*options); });
  add_layouts(bench);
}

}  // namespace sinew::cli
