// sinew plan: what a training run will need and take, before it is bought.
#include <fmt/format.h>

#include <memory>

#include "base/error.hpp"
#include "base/files.hpp"
#include "base/text.hpp"
#include "cli/commands.hpp"
#include "cli/plan_here.hpp"
#include "cli/plan_tools.hpp"
#include "kernels/matmul_peak.hpp"
#include "plan/answer.hpp"
#include "plan/here.hpp"

namespace sinew::cli {
namespace {

struct Options {
  std::string model, cluster, accelerator = "H100", precision = "bf16", objective = "time", html, emit,
                              layout;
  int count = 0, top = 5;
  double tokens = 0;
  std::int64_t batch = 0, sequence = 0;  // 0: not given
  int micro_batch = 0;
  std::string recompute = "none";
  int steps = 6, ranks = 1;
  std::string here_layout;
  std::string only, optimizer = "adamw";
  bool json = false, here = false, check = false, curves = false;
};

void run_here(Options o) {
  if (o.batch == 0) o.batch = 8;
  if (o.sequence == 0) o.sequence = 256;
#ifdef SINEW_TRAIN
  if (o.check) return check_here(o.ranks, o.steps, o.model, o.json);
  require(!o.model.empty(), "plan --here: name a model with --model, or --check");
  plan_here({.model = o.model,
             .precision = o.precision,
             .recompute = o.recompute,
             .batch = o.batch,
             .sequence = o.sequence,
             .micro_batch = o.micro_batch,
             .ranks = o.ranks,
             .layout = o.here_layout,
             .json = o.json});
#else
  require(!o.check, "plan --here --check trains small models: this sinew was built without libtorch");
  require(!o.model.empty(), "plan --here: name a model with --model");
  const MatmulPeak peak = matmul_peak();
  const plan::Accelerator machine =
      plan::this_machine(peak.fp32, peak.bf16, plan::measure_memory_bandwidth());
  plan::HereRun run;
  run.network = plan::find_network(o.model);
  run.job.sequence = o.sequence;
  run.job.global_batch = o.batch;
  run.job.precision = plan::parse_precision(o.precision);
  run.layout.zero = 0;
  run.layout.micro_batch = static_cast<int>(o.micro_batch > 0 ? o.micro_batch : o.batch);
  run.layout.recompute.full = o.recompute == "full";
  const plan::StepPrediction p = plan::predict_here(machine, run);
  if (o.json)
    return fmt::print("{{\"step_time_s\": {}, \"tokens_per_s\": {}, \"mfu\": {}, \"memory_bytes\": {}}}\n",
                      p.seconds, p.tokens_per_second, p.mfu, p.memory.total());
  fmt::print("this machine: products {:.0f} GFLOP/s fp32, {:.0f} bf16; memory {:.1f} GB/s, {:.1f} GB\n",
             peak.fp32 / 1e9, peak.bf16 / 1e9, machine.memory_bandwidth / 1e9, machine.memory_bytes / 1e9);
  fmt::print("{}: {:.3f} s a step, {:.0f} tokens/s, {:.1f} % of the product rate; {:.2f} GB{}\n",
             run.network.name, p.seconds, p.tokens_per_second, 100 * p.mfu, p.memory.total() / 1e9,
             p.fits ? "" : ": does not fit");
#endif
}

void run_plan(const Options& o) {
  if (o.here) return run_here(o);
  require(!o.model.empty(), "plan: name a model with --model (a preset, a config.json or a model directory)");
  require(o.tokens >= 0, "plan: --tokens must not be negative");
  require(o.objective == "time" || o.objective == "memory" || o.objective == "cost",
          "plan: --objective is time, memory or cost");
  require(o.objective != "cost" || o.tokens > 0,
          "plan: --objective cost needs --tokens: the cost is of the whole run");
  plan::Job job;
  job.tokens = o.tokens;
  job.sequence = o.sequence > 0 ? o.sequence : 4096;
  job.global_batch = o.batch > 0 ? o.batch : 1024;
  plan::SearchSpace space = plan::parse_space(o.only);
  for (const std::string& name : split(o.precision, ','))
    space.precisions.push_back(plan::parse_precision(name));
  job.precision = space.precisions[0];
  job.optimizer = plan::parse_optimizer(o.optimizer);
  const plan::Network network = plan::find_network(o.model);
  plan::Islands islands;
  if (!o.cluster.empty()) {
    islands = plan::read_cluster(o.cluster);
  } else {
    require(o.count > 0, "plan: give --cluster FILE, or --accelerator NAME and --count N");
    islands.parts.push_back(plan::cluster_of(o.accelerator, o.count));
  }
  if (islands.parts.size() > 1) {
    require(o.html.empty() && o.emit.empty(), "plan: --html and --emit are for one cluster, not for islands");
    const plan::IslandAnswer found = plan::answer_islands(islands, network, job, space);
    return fmt::print("{}", o.json ? plan::islands_json(found, islands) : plan::islands_text(found, islands));
  }
  plan::AnswerOptions how{
      .keep = o.top,
      .objective = o.objective == "memory" ? plan::Objective::memory : plan::Objective::time,
      .curves = !o.html.empty() || o.curves};
  const plan::Answer answer = o.objective == "cost"
                                  ? plan::cheapest_answer(islands.parts[0], network, job, space, how)
                                  : plan::answer(islands.parts[0], network, job, space, how);
  fmt::print("{}", o.json ? plan::answer_json(answer) : plan::answer_text(answer));
  if (!o.layout.empty()) {
    plan::Setup asked = answer.search.best[0].setup;
    asked.layout = plan::Layout{};
    asked.layout = plan::parse_layout(o.layout, asked);
    fmt::print("\nwhy not {}", plan::why_not(asked, answer.search.best[0], plan::fitted_constants()));
  }
  if (!o.html.empty()) write_file_atomic(o.html, plan::answer_html(answer));
  if (!o.emit.empty()) write_file_atomic(o.emit, plan::answer_run_toml(answer, o.model));
}

void add_main(Command command) {
  auto o = std::make_shared<Options>();
  command.add_option("--model", o->model, "Preset, config.json or model directory; also moe-1.7t, moe-10t");
  command.add_option("--cluster", o->cluster, "TOML file of a cluster (docs/planner.md)");
  command.add_option("--accelerator", o->accelerator, "Instead: a name of the catalogue")
      .capture_default_str();
  command.add_option("--count", o->count, "and how many");
  command.add_option("--tokens", o->tokens, "Tokens of the run, e.g. 14.8e12; without it, a step only");
  command.add_option("--batch", o->batch, "Sequences in a step (default 1024; with --here 8)")
      .range(std::int64_t{1}, std::int64_t{1} << 40);
  command.add_option("--sequence", o->sequence, "Tokens in a sequence (default 4096; with --here 256)")
      .range(std::int64_t{1}, std::int64_t{1} << 40);
  command
      .add_option("--precision", o->precision,
                  "bf16, fp8, fp8-block, fp4, int8 or fp32; several with commas: the best is chosen")
      .capture_default_str();
  command.add_option("--objective", o->objective, "time, memory, or cost (also fewer accelerators)")
      .capture_default_str();
  command.add_option("--top", o->top, "Layouts to show").capture_default_str().range(1, 1000);
  command.add_option("--optimizer", o->optimizer, "adamw or muon").capture_default_str();
  command.add_option("--only", o->only,
                     "Look only among these, e.g. \"tp=1,2,4 pp=1 zero=1,3 recompute=none,full nodes=4\"");
  command.add_flag(
      "--curves", o->curves,
      "Also time against memory, more and fewer accelerators, and what if (the HTML page has them)");
  command.add_option("--why-not", o->layout, "A layout to compare with the best, e.g. \"tp=8 pp=4 mb=1\"");
  command.add_option("--html", o->html, "Write one self-contained page");
  command.add_option("--emit", o->emit, "Write a run configuration for `sinew train`");
  command.add_flag("--json", o->json, "Print JSON");
  command.add_flag("--here", o->here, "Measure this machine and predict a run on it");
  command.add_flag("--check", o->check,
                   "With --here: predict and make a dozen small runs, print both (--model: only runs or "
                   "layouts so named)");
  command.add_option("--ranks", o->ranks, "With --here: processes of the run, as of `sinew train`")
      .range(1, 64);
  command.add_option(
      "--layout", o->here_layout,
      "With --here --ranks: their layout, the settings of [layout], e.g. \"tensor=2 expert=2\"");
  command.add_option("--steps", o->steps, "With --check: steps of a run")
      .capture_default_str()
      .range(1, 1000);
  command.add_option("--recompute", o->recompute, "With --here: none or full")
      .capture_default_str()
      .one_of({"none", "full"});
  command
      .add_option("--micro-batch", o->micro_batch,
                  "With --here: sequences a forward pass; 0: the whole batch")
      .range(0, 1 << 24);
  command.footer(
      "Examples:\n"
      "  sinew plan --model deepseek-v3 --accelerator H800 --count 2048 --tokens 14.8e12 --batch 15360 "
      "--precision fp8\n"
      "  sinew plan --model mixtral-8x7b --cluster cluster.toml --tokens 1e12 --html plan.html\n"
      "  sinew plan --model llama-3.1-70b --count 1024 --why-not \"tp=8 pp=1 zero=3\"\n"
      "  sinew plan --model deepseek-v3 --accelerator H800 --count 2048 --only \"tp=1 pp=8,16 nodes=4\" "
      "--curves\n"
      "  sinew plan --here --model shakespeare-moe --batch 8 --sequence 256 --precision fp32\n"
      "  sinew plan --here --model shakespeare-moe --ranks 2 --layout \"shard=2 zero=3\"\n"
      "  sinew plan --here --check\n"
      "  sinew plan --here --check --ranks 2\n"
      "  sinew plan compare eras\n"
      "  sinew plan compare --model deepseek-v3 --model llama-3.1-405b --accelerator H100 --accelerator B200 "
      "--count "
      "2048\n"
      "  sinew plan failures --accelerators 100000 --days 90\n"
      "  sinew plan serving --model deepseek-v3 --accelerator H200 --count 16 --expert 16 --weight-bits 8\n"
      "  sinew plan validate runs.json");
  command.callback([o, command] {
    if (!command.has_subcommand()) run_plan(*o);
  });
}

}  // namespace

void add_plan(Command app) {
  Command plan = app.add_subcommand("plan", "Plan a cluster and a training run before buying it");
  plan.require_subcommand(0, 1);
  add_main(plan);
  add_plan_tools(plan);
}

}  // namespace sinew::cli
