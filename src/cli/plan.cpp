// sinew plan: what a training run will need and take, before it is bought.
#include <fmt/format.h>

#include <filesystem>
#include <memory>

#include "base/error.hpp"
#include "base/files.hpp"
#include "cli/commands.hpp"
#include "cli/plan_here.hpp"
#include "kernels/matmul_peak.hpp"
#include "plan/answer.hpp"
#include "plan/data_files.hpp"
#include "plan/here.hpp"
#include "plan/inference.hpp"
#include "plan/validation.hpp"

namespace sinew::cli {
namespace {

struct Options {
  std::string model, cluster, accelerator = "H100", precision = "bf16", objective = "time", html, emit,
                              layout;
  int count = 0, top = 5;
  double tokens = 0;
  std::int64_t batch = 1024, sequence = 4096;
  int micro_batch = 0;
  std::string recompute = "none";
  int steps = 6;
  bool json = false, here = false, check = false;
};

void run_here(const Options& o) {
#ifdef SINEW_TRAIN
  if (o.check) return check_here(o.steps, o.model, o.json);
  require(!o.model.empty(), "plan --here: name a model with --model, or --check");
  plan_here({.model = o.model,
             .precision = o.precision,
             .recompute = o.recompute,
             .batch = o.batch,
             .sequence = o.sequence,
             .micro_batch = o.micro_batch,
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
  job.sequence = o.sequence;
  job.global_batch = o.batch;
  job.precision = plan::parse_precision(o.precision);
  const plan::Network network = plan::find_network(o.model);
  plan::Islands islands;
  if (!o.cluster.empty()) {
    islands = plan::read_cluster(o.cluster);
  } else {
    require(o.count > 0, "plan: give --cluster FILE, or --accelerator NAME and --count N");
    islands.parts.push_back(plan::cluster_of(o.accelerator, o.count));
  }
  if (islands.parts.size() > 1) {
    require(o.html.empty() && o.emit.empty() && !o.json,
            "plan: --html, --emit and --json are for one cluster, not for islands");
    return fmt::print("{}", plan::islands_text(plan::answer_islands(islands, network, job, {}), islands));
  }
  plan::AnswerOptions how{
      .keep = o.top,
      .objective = o.objective == "memory" ? plan::Objective::memory : plan::Objective::time,
      .curves = !o.html.empty()};
  const plan::Answer answer = o.objective == "cost"
                                  ? plan::cheapest_answer(islands.parts[0], network, job, {}, how)
                                  : plan::answer(islands.parts[0], network, job, {}, how);
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

void add_main(CLI::App& command) {
  auto o = std::make_shared<Options>();
  command.add_option("--model", o->model, "Preset, config.json or model directory; also moe-1.7t, moe-10t");
  command.add_option("--cluster", o->cluster, "TOML file of a cluster (docs/planner.md)");
  command.add_option("--accelerator", o->accelerator, "Instead: a name of the catalogue")
      ->capture_default_str();
  command.add_option("--count", o->count, "and how many");
  command.add_option("--tokens", o->tokens, "Tokens of the run, e.g. 14.8e12; without it, a step only");
  command.add_option("--batch", o->batch, "Sequences in a step")->capture_default_str();
  command.add_option("--sequence", o->sequence, "Tokens in a sequence")->capture_default_str();
  command.add_option("--precision", o->precision, "bf16, fp8, fp8-block, fp4, int8 or fp32")
      ->capture_default_str();
  command.add_option("--objective", o->objective, "time, memory, or cost (also fewer accelerators)")
      ->capture_default_str();
  command.add_option("--top", o->top, "Layouts to show")->capture_default_str()->check(CLI::Range(1, 1000));
  command.add_option("--why-not", o->layout, "A layout to compare with the best, e.g. \"tp=8 pp=4 mb=1\"");
  command.add_option("--html", o->html, "Write one self-contained page");
  command.add_option("--emit", o->emit, "Write a run configuration for `sinew train`");
  command.add_flag("--json", o->json, "Print JSON");
  command.add_flag("--here", o->here, "Measure this machine and predict a run of one process on it");
  command.add_flag(
      "--check", o->check,
      "With --here: predict and make a dozen small runs, print both (--model: only runs so named)");
  command.add_option("--steps", o->steps, "With --check: steps of a run")
      ->capture_default_str()
      ->check(CLI::Range(1, 1000));
  command.add_option("--recompute", o->recompute, "With --here: none or full")
      ->capture_default_str()
      ->check(CLI::IsMember({"none", "full"}));
  command
      .add_option("--micro-batch", o->micro_batch,
                  "With --here: sequences a forward pass; 0: the whole batch")
      ->check(CLI::Range(0, 1 << 24));
  command.footer(
      "Examples:\n"
      "  sinew plan --model deepseek-v3 --accelerator H800 --count 2048 --tokens 14.8e12 --batch 15360 "
      "--precision fp8\n"
      "  sinew plan --model mixtral-8x7b --cluster cluster.toml --tokens 1e12 --html plan.html\n"
      "  sinew plan --model llama-3.1-70b --count 1024 --why-not \"tp=8 pp=1 zero=3\"\n"
      "  sinew plan --here --model shakespeare-moe --batch 8 --sequence 256 --precision fp32\n"
      "  sinew plan compare eras\n"
      "  sinew plan failures --accelerators 100000 --days 90\n"
      "  sinew plan serving --model deepseek-v3 --accelerator H200 --count 16 --expert 16 --weight-bits 8\n"
      "  sinew plan validate runs.json");
  command.callback([o, &command] {
    if (command.get_subcommands().empty()) run_plan(*o);
  });
}

void add_compare(CLI::App& plan) {
  struct Given {
    std::string preset;
    bool json = false;
  };
  auto o = std::make_shared<Given>();
  CLI::App* command = plan.add_subcommand("compare", "Models and clusters side by side");
  command->add_option("preset", o->preset, "eras or moe-10t-ascend")->required();
  command->add_flag("--json", o->json, "Print JSON");
  command->callback([o] { fmt::print("{}", plan::compare(o->preset, o->json)); });
}

void add_failures(CLI::App& plan) {
  struct Given {
    double accelerators = 16384, days = 54, rate = -1, checkpoint = 5, interval = 0, recovery = 480;
    int trials = 32, spares = -1;
    std::uint64_t seed = 1;
    bool memory = false;
  };
  auto o = std::make_shared<Given>();
  CLI::App* command = plan.add_subcommand(
      "failures", "Effective training time under failures, by formula and by Monte Carlo");
  command->add_option("--accelerators", o->accelerators, "How many")
      ->capture_default_str()
      ->check(CLI::Range(1.0, 1e8));
  command->add_option("--days", o->days, "Days of work without failures")
      ->capture_default_str()
      ->check(CLI::Range(0.001, 1e5));
  command->add_option("--rate", o->rate, "Failures in a million accelerator-hours (default: Llama 3's 19.7)");
  command->add_option("--checkpoint", o->checkpoint, "Seconds that training stops for a checkpoint")
      ->capture_default_str();
  command->add_option("--interval", o->interval, "Seconds between checkpoints; 0: the best")
      ->capture_default_str();
  command->add_option("--recovery", o->recovery, "Seconds from a failure to training again")
      ->capture_default_str();
  command->add_option("--spares", o->spares, "Spare nodes; -1: enough");
  command->add_option("--trials", o->trials, "Runs to play")
      ->capture_default_str()
      ->check(CLI::Range(1, 100000));
  command->add_option("--seed", o->seed, "Of the random numbers")->capture_default_str();
  command->add_flag("--memory", o->memory, "Recover from copies in the memory of peers");
  command->callback([o] {
    plan::FailureModel m = plan::default_failures();
    if (o->rate >= 0) m.components = {{"all", o->rate}};
    require(o->checkpoint >= 0 && o->interval >= 0 && o->recovery >= 0,
            "failures: times must not be negative");
    m.checkpoint = o->checkpoint;
    m.interval = o->interval;
    m.detect = m.load = 0;
    m.restart = o->recovery;
    m.in_memory = o->memory;
    const double work = o->days * 86400;
    const plan::Goodput g = plan::goodput_formula(m, o->accelerators, work);
    const plan::MonteCarlo mc =
        plan::goodput_monte_carlo(m, o->accelerators, work, o->trials, o->seed, o->spares);
    fmt::print("one failure every {:.3f} h; {:.0f} in {:.1f} days of wall time\n", g.mtbf_hours, g.failures,
               o->days / g.share);
    fmt::print("checkpoint every {:.0f} s\n", g.interval);
    fmt::print(
        "effective time: formula {:.2f} %, Monte Carlo {:.2f} % (one run deviates by {:.2f} %; {} runs)\n",
        100 * g.share, 100 * mc.share, 100 * mc.deviation, mc.trials);
    fmt::print("lost to restarts {:.2f} %, to work done again {:.2f} %, to checkpoints {:.2f} %\n",
               100 * g.restart_loss, 100 * g.rework_loss, 100 * g.checkpoint_loss);
    if (o->spares >= 0) fmt::print("waiting for a node {:.2f} %\n", 100 * mc.waiting);
    fmt::print("spare nodes so that one is at hand 99 times in 100: {}\n",
               plan::spares_needed(m, o->accelerators));
  });
}

void add_serving(CLI::App& plan) {
  struct Given {
    std::string model, accelerator = "H100";
    int count = 8;
    plan::ServingJob job;
    double ssd = 5;
  };
  auto o = std::make_shared<Given>();
  CLI::App* command = plan.add_subcommand("serving", "Tokens a second, latency and cost of serving a model");
  command->add_option("--model", o->model, "Preset, config.json or model directory")->required();
  command->add_option("--accelerator", o->accelerator, "A name of the catalogue")->capture_default_str();
  command->add_option("--count", o->count, "How many")->capture_default_str()->check(CLI::Range(1, 10000000));
  command->add_option("--tensor", o->job.tensor, "Tensor parallel")->capture_default_str();
  command->add_option("--expert", o->job.expert, "Expert parallel")->capture_default_str();
  command->add_option("--weight-bits", o->job.weight_bits, "2 to 16")->capture_default_str();
  command->add_option("--kv-bits", o->job.kv_bits, "Of the key-value cache")->capture_default_str();
  command->add_option("--prompt", o->job.prompt, "Tokens of a prompt")
      ->capture_default_str()
      ->check(CLI::Range(1, 1 << 24));
  command->add_option("--output", o->job.output, "Tokens of an answer")
      ->capture_default_str()
      ->check(CLI::Range(1, 1 << 24));
  command->add_flag("--ssd", o->job.experts_on_ssd, "Experts streamed from SSD");
  command->add_option("--ssd-gbps", o->ssd, "GB/s of the SSD of one accelerator")->capture_default_str();
  command->add_option("--hot-experts", o->job.hot_experts, "Share of expert reads served from memory")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 1.0));
  command->callback([o] {
    require(o->ssd > 0, "serving: --ssd-gbps must be above zero");
    o->job.ssd_bandwidth = o->ssd * 1e9;
    const auto& chip = plan::find_accelerator(o->accelerator);
    fmt::print("{:>6} {:>12} {:>12} {:>12} {:>14} {:>9}  decode waits for\n", "batch", "first token",
               "ms a token", "tokens/s", "USD a million", "GB");
    for (const auto& p : plan::plan_serving(plan::find_network(o->model), chip, o->count, o->job))
      fmt::print("{:>6} {:>10.3f} s {:>12.2f} {:>12.0f} {:>14.3f} {:>9.1f}  {}\n", p.batch, p.prefill_seconds,
                 1000 * p.step_seconds, p.tokens_per_second, p.cost_per_million, p.memory_bytes / 1e9,
                 p.fits ? p.bound : "does not fit");
  });
}

void add_validate(CLI::App& plan) {
  struct Given {
    std::string runs;
    plan::ValidationOptions how;
    bool no_leave_one_out = false;
  };
  auto o = std::make_shared<Given>();
  CLI::App* command =
      plan.add_subcommand("validate", "Predict published runs and compare with what they measured");
  command->add_option("runs", o->runs, "JSON file of runs")->required();
  command->add_flag("--json", o->how.json, "Print JSON, every run in it");
  command->add_flag("--rows", o->how.rows, "Print every run, not only the tables");
  command->add_flag("--markdown", o->how.markdown, "Tables in Markdown");
  command->add_flag("--no-leave-one-out", o->no_leave_one_out,
                    "Skip the predictions without a run's own source");
  command->callback([o] {
    o->how.leave_one_out = !o->no_leave_one_out;
    fmt::print("{}", plan::validate_runs(o->runs, o->how));
  });
}

void add_fit(CLI::App& plan) {
  struct Given {
    std::string runs, out;
    int rounds = 12;
  };
  auto o = std::make_shared<Given>();
  CLI::App* command = plan.add_subcommand("fit", "Fit the constants of the cost model to published runs");
  command->add_option("runs", o->runs, "JSON file of runs")->required();
  command->add_option("--out", o->out, "Where to write (default: data/planner/constants.json)");
  command->add_option("--rounds", o->rounds, "Newton steps at most")->capture_default_str();
  command->callback([o] {
    const std::string path =
        o->out.empty() ? (plan::data_dir() / "planner" / "constants.json").string() : o->out;
    write_file_atomic(path, plan::fit_runs(o->runs, o->rounds));
    fmt::print("wrote {}\n", path);
  });
}

void add_hardware(CLI::App& plan) {
  auto name = std::make_shared<std::string>();
  CLI::App* command =
      plan.add_subcommand("hardware", "The catalogue of accelerators, every number with its source");
  command->add_option("name", *name, "One accelerator; without it, the list");
  command->callback([name] {
    if (!name->empty()) return fmt::print("{}", plan::describe_accelerator(*name));
    fmt::print("{:<34} {:>9} {:>9} {:>8} {:>8} {:>7} {:>9} {:>8} {:>7}\n", "accelerator", "bf16 TF/s",
               "8-bit", "HBM GB", "HBM TB/s", "domain", "fabric GB", "NIC Gbit", "USD/h");
    for (const plan::Accelerator& a : plan::accelerators())
      fmt::print("{:<34} {:>9.4g} {:>9.4g} {:>8.4g} {:>8.3g} {:>7} {:>9.4g} {:>8.4g} {:>7.3g}\n", a.name,
                 a.bf16 / 1e12, (a.fp8 > 0 ? a.fp8 : a.int8) / 1e12, a.memory_bytes / 1e9,
                 a.memory_bandwidth / 1e12, a.scaleup_domain, a.scaleup / 1e9, a.network * 8 / 1e9,
                 a.price_hour);
  });
}

}  // namespace

void add_plan(CLI::App& app) {
  CLI::App* plan = app.add_subcommand("plan", "Plan a cluster and a training run before buying it");
  plan->require_subcommand(0, 1);
  add_main(*plan);
  add_compare(*plan);
  add_failures(*plan);
  add_serving(*plan);
  add_hardware(*plan);
  add_validate(*plan);
  add_fit(*plan);
}

}  // namespace sinew::cli
