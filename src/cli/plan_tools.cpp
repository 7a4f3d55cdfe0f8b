// The subcommands of `sinew plan`.
#include "cli/plan_tools.hpp"

#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "base/files.hpp"
#include "plan/compare.hpp"
#include "plan/data_files.hpp"
#include "plan/inference.hpp"
#include "plan/validation.hpp"

namespace sinew::cli {
namespace {

using Json = nlohmann::ordered_json;

void add_compare(Command plan) {
  struct Given {
    std::string preset, precision = "bf16";
    std::vector<std::string> models, accelerators, clusters;
    int count = 0;
    double tokens = 0;
    std::int64_t batch = 1024, sequence = 4096;
    bool json = false;
  };
  auto o = std::make_shared<Given>();
  Command command = plan.add_subcommand("compare", "Models and clusters side by side");
  command.add_option("preset", o->preset, "eras or moe-10t-ascend; or without it:");
  command.add_option("--model", o->models, "Models to compare; may be given several times");
  command.add_option("--accelerator", o->accelerators, "Machines by name; several times");
  command.add_option("--cluster", o->clusters, "Machines by TOML file; several times");
  command.add_option("--count", o->count, "Accelerators of each --accelerator");
  command.add_option("--tokens", o->tokens, "Tokens of the run; without it, a step only");
  command.add_option("--batch", o->batch, "Sequences in a step").capture_default_str();
  command.add_option("--sequence", o->sequence, "Tokens in a sequence").capture_default_str();
  command.add_option("--precision", o->precision, "As of `sinew plan`").capture_default_str();
  command.add_flag("--json", o->json, "Print JSON");
  command.footer(
      "Examples:\n"
      "  sinew plan compare eras\n"
      "  sinew plan compare --model deepseek-v3 --model llama-3.1-405b --accelerator H100 --accelerator B200 "
      "--count 2048 --tokens 15e12");
  command.callback([o] {
    if (!o->preset.empty()) {
      require(o->models.empty(), "compare: a preset brings its own models: leave out --model");
      return fmt::print("{}", plan::compare(plan::comparison_preset(o->preset), o->json));
    }
    require(!o->models.empty() && !(o->accelerators.empty() && o->clusters.empty()),
            "compare: name a preset (eras, moe-10t-ascend), or --model and --accelerator or --cluster");
    require(o->tokens >= 0, "compare: --tokens must not be negative");
    std::vector<plan::Cluster> machines;
    for (const auto& name : o->accelerators) {
      require(o->count > 0, "compare: --accelerator {} needs --count", name);
      machines.push_back(plan::cluster_of(name, o->count));
    }
    for (const auto& file : o->clusters) {
      const plan::Islands islands = plan::read_cluster(file);
      require(islands.parts.size() == 1, "compare: {} has islands: plan it by itself", file);
      machines.push_back(islands.parts[0]);
    }
    plan::Job job;
    job.tokens = o->tokens;
    job.sequence = o->sequence;
    job.global_batch = o->batch;
    job.precision = plan::parse_precision(o->precision);
    std::vector<plan::Comparison> rows;
    for (const auto& model : o->models)
      for (const plan::Cluster& machine : machines) rows.push_back({machine, model, job});
    fmt::print("{}", plan::compare(rows, o->json));
  });
}

void add_failures(Command plan) {
  struct Given {
    double accelerators = 16384, days = 54, rate = -1, checkpoint = 5, interval = 0, recovery = 480;
    int trials = 32, spares = -1;
    std::uint64_t seed = 1;
    bool memory = false, json = false;
  };
  auto o = std::make_shared<Given>();
  Command command = plan.add_subcommand(
      "failures", "Effective training time under failures, by formula and by Monte Carlo");
  command.add_option("--accelerators", o->accelerators, "How many").capture_default_str().range(1.0, 1e8);
  command.add_option("--days", o->days, "Days of work without failures")
      .capture_default_str()
      .range(0.001, 1e5);
  command.add_option("--rate", o->rate, "Failures in a million accelerator-hours (default: Llama 3's 19.7)");
  command.add_option("--checkpoint", o->checkpoint, "Seconds that training stops for a checkpoint")
      .capture_default_str();
  command.add_option("--interval", o->interval, "Seconds between checkpoints; 0: the best")
      .capture_default_str();
  command.add_option("--recovery", o->recovery, "Seconds from a failure to training again")
      .capture_default_str();
  command.add_option("--spares", o->spares, "Spare nodes; -1: enough");
  command.add_option("--trials", o->trials, "Runs to play").capture_default_str().range(1, 100000);
  command.add_option("--seed", o->seed, "Of the random numbers").capture_default_str();
  command.add_flag("--memory", o->memory, "Recover from copies in the memory of peers");
  command.add_flag("--json", o->json, "Print JSON");
  command.callback([o] {
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
    m.in_memory = !m.in_memory;
    const double other = plan::goodput_formula(m, o->accelerators, work).share;
    m.in_memory = !m.in_memory;
    const double gain = m.in_memory ? g.share - other : other - g.share;
    const int spares = plan::spares_needed(m, o->accelerators);
    if (o->json)
      return fmt::print("{}\n", Json{{"mtbf_hours", g.mtbf_hours},
                                     {"failures", g.failures},
                                     {"interval_s", g.interval},
                                     {"goodput_formula", g.share},
                                     {"goodput_monte_carlo", mc.share},
                                     {"deviation", mc.deviation},
                                     {"trials", mc.trials},
                                     {"restart_loss", g.restart_loss},
                                     {"rework_loss", g.rework_loss},
                                     {"checkpoint_loss", g.checkpoint_loss},
                                     {"waiting", mc.waiting},
                                     {"spare_nodes", spares},
                                     {"memory_recovery_gain", gain}}
                                    .dump(1));
    fmt::print("one failure every {:.3f} h; {:.0f} in {:.1f} days of wall time\n", g.mtbf_hours, g.failures,
               o->days / g.share);
    fmt::print("checkpoint every {:.0f} s\n", g.interval);
    fmt::print(
        "effective time: formula {:.2f} %, Monte Carlo {:.2f} % (one run deviates by {:.2f} %; {} runs)\n",
        100 * g.share, 100 * mc.share, 100 * mc.deviation, mc.trials);
    fmt::print("lost to restarts {:.2f} %, to work done again {:.2f} %, to checkpoints {:.2f} %\n",
               100 * g.restart_loss, 100 * g.rework_loss, 100 * g.checkpoint_loss);
    if (o->spares >= 0) fmt::print("waiting for a node {:.2f} %\n", 100 * mc.waiting);
    fmt::print("spare nodes so that one is at hand 99 times in 100: {}\n", spares);
    fmt::print("recovery from copies in peers' memory {} {:.2f} %\n", m.in_memory ? "saves" : "would save",
               100 * gain);
  });
}

void add_serving(Command plan) {
  struct Given {
    std::string model, accelerator = "H100";
    int count = 8;
    plan::ServingJob job;
    double ssd = 5;
    bool json = false;
  };
  auto o = std::make_shared<Given>();
  Command command = plan.add_subcommand("serving", "Tokens a second, latency and cost of serving a model");
  command.add_option("--model", o->model, "Preset, config.json or model directory").required();
  command.add_option("--accelerator", o->accelerator, "A name of the catalogue").capture_default_str();
  command.add_option("--count", o->count, "How many").capture_default_str().range(1, 10000000);
  command.add_option("--tensor", o->job.tensor, "Tensor parallel").capture_default_str();
  command.add_option("--expert", o->job.expert, "Expert parallel").capture_default_str();
  command.add_option("--weight-bits", o->job.weight_bits, "2 to 16").capture_default_str();
  command.add_option("--kv-bits", o->job.kv_bits, "Of the key-value cache").capture_default_str();
  command.add_option("--prompt", o->job.prompt, "Tokens of a prompt").capture_default_str().range(1, 1 << 24);
  command.add_option("--output", o->job.output, "Tokens of an answer")
      .capture_default_str()
      .range(1, 1 << 24);
  command.add_flag("--ssd", o->job.experts_on_ssd, "Experts streamed from SSD");
  command.add_option("--ssd-gbps", o->ssd, "GB/s of the SSD of one accelerator").capture_default_str();
  command.add_option("--hot-experts", o->job.hot_experts, "Share of expert reads served from memory")
      .capture_default_str()
      .range(0.0, 1.0);
  command.add_flag("--json", o->json, "Print JSON");
  command.callback([o] {
    require(o->ssd > 0, "serving: --ssd-gbps must be above zero");
    o->job.ssd_bandwidth = o->ssd * 1e9;
    const auto& chip = plan::find_accelerator(o->accelerator);
    const auto points = plan::plan_serving(plan::find_network(o->model), chip, o->count, o->job);
    if (o->json) {
      Json list = Json::array();
      for (const auto& p : points)
        list.push_back({{"batch", p.batch},
                        {"first_token_s", p.prefill_seconds},
                        {"token_s", p.step_seconds},
                        {"tokens_per_s", p.tokens_per_second},
                        {"usd_per_million", p.cost_per_million},
                        {"memory_bytes", p.memory_bytes},
                        {"fits", p.fits},
                        {"bound", p.bound}});
      return fmt::print("{}\n", list.dump(1));
    }
    fmt::print("{:>6} {:>12} {:>12} {:>12} {:>14} {:>9}  decode waits for\n", "batch", "first token",
               "ms a token", "tokens/s", "USD a million", "GB");
    for (const auto& p : points)
      fmt::print("{:>6} {:>10.3f} s {:>12.2f} {:>12.0f} {:>14.3f} {:>9.1f}  {}\n", p.batch, p.prefill_seconds,
                 1000 * p.step_seconds, p.tokens_per_second, p.cost_per_million, p.memory_bytes / 1e9,
                 p.fits ? p.bound : "does not fit");
  });
}

void add_validate(Command plan) {
  struct Given {
    std::string runs;
    plan::ValidationOptions how;
    bool no_leave_one_out = false;
  };
  auto o = std::make_shared<Given>();
  Command command =
      plan.add_subcommand("validate", "Predict published runs and compare with what they measured");
  command.add_option("runs", o->runs, "JSON file of runs").required();
  command.add_flag("--json", o->how.json, "Print JSON, every run in it");
  command.add_flag("--rows", o->how.rows, "Print every run, not only the tables");
  command.add_flag("--markdown", o->how.markdown, "Tables in Markdown");
  command.add_flag("--no-leave-one-out", o->no_leave_one_out,
                   "Skip the predictions without a run's own source");
  command.callback([o] {
    o->how.leave_one_out = !o->no_leave_one_out;
    fmt::print("{}", plan::validate_runs(o->runs, o->how));
  });
}

void add_fit(Command plan) {
  struct Given {
    std::string runs, out;
    int rounds = 12;
  };
  auto o = std::make_shared<Given>();
  Command command = plan.add_subcommand("fit", "Fit the constants of the cost model to published runs");
  command.add_option("runs", o->runs, "JSON file of runs").required();
  command.add_option("--out", o->out, "Where to write (default: data/planner/constants.json)");
  command.add_option("--rounds", o->rounds, "Newton steps at most").capture_default_str();
  command.callback([o] {
    const std::string path =
        o->out.empty() ? (plan::data_dir() / "planner" / "constants.json").string() : o->out;
    write_file_atomic(path, plan::fit_runs(o->runs, o->rounds));
    fmt::print("wrote {}\n", path);
  });
}

void add_hardware(Command plan) {
  auto name = std::make_shared<std::string>();
  Command command =
      plan.add_subcommand("hardware", "The catalogue of accelerators, every number with its source");
  command.add_option("name", *name, "One accelerator; without it, the list");
  command.callback([name] {
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

void add_plan_tools(Command plan) {
  add_compare(plan);
  add_failures(plan);
  add_serving(plan);
  add_hardware(plan);
  add_validate(plan);
  add_fit(plan);
}

}  // namespace sinew::cli
