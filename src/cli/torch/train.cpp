// sinew train
#include <fmt/format.h>

#include <ATen/Parallel.h>

#include <csignal>
#include <memory>

#include "base/error.hpp"
#include "base/files.hpp"
#include "base/log.hpp"
#include "base/signals.hpp"
#include "base/threads.hpp"
#include "cli/commands.hpp"
#include "cli/plan_here.hpp"
#include "config/run_config.hpp"
#include "train/trainer.hpp"

namespace sinew::cli {
namespace {

struct Options {
  std::vector<std::string> configs, sets;
  std::string out, device;
  bool resume = false, overwrite = false, print_config = false, help_config = false, no_plan = false;
};

RunConfig resolve(const Options& o) {
  std::vector<std::string> files, sets = o.sets;
  const fs::path saved = fs::path(o.out) / "config.toml";
  if (o.resume && !o.out.empty() && fs::exists(saved)) files.push_back(saved.string());
  files.insert(files.end(), o.configs.begin(), o.configs.end());
  if (!o.device.empty()) sets.push_back("train.device=" + o.device);
  require(!files.empty() || !sets.empty(),
          "nothing to train: name a run file with --config, e.g. configs/runs/demo.toml");
  RunConfig config = load_run_config(files, sets);
  if (files.size() > 1 || (o.resume && !sets.empty())) {
    RunConfig before;
    if (o.resume && fs::exists(saved)) {
      apply_toml_file(before, saved);
      for (const auto& change : config_differences(before, config))
        log::info("changed since the run began: {}", change);
    }
  }
  return config;
}

// Paths in the saved file hold wherever the run is resumed from.
void make_paths_absolute(RunConfig& config) {
  for (auto& path : config.data.path) path = fs::absolute(path).lexically_normal().string();
  for (auto* path : {&config.model.config, &config.model.init})
    if (!path->empty() && fs::exists(*path)) *path = fs::absolute(*path).lexically_normal().string();
}

void summarise(const Options& o, const TrainingResult& result, const RunConfig& config, double planned) {
  fmt::print("\n");
  if (planned > 0 && result.step_seconds > 0)
    fmt::print("step             {:.4f} s measured, {:.4f} s planned ({:+.1f} %)\n", result.step_seconds,
               planned, 100 * (planned / result.step_seconds - 1));
  if (result.evaluation)
    fmt::print("validation loss  {:.4f} nats a token, {:.4f} bits per byte\n", result.evaluation->loss,
               result.evaluation->bits_per_byte);
  fmt::print("sample           {}\n", result.sample);
  fmt::print("model            {}\n", result.model.string());
  fmt::print("checkpoint       {}\n\n", result.checkpoint.string());
  fmt::print("Try next:\n");
  fmt::print("  sinew generate {} --prompt \"{}\"\n", result.model.string(), config.eval.sample_prompt);
  fmt::print("  sinew inspect {}\n", result.model.string());
  fmt::print("  sinew train --out {} --resume --set train.steps={}   # go on training\n", o.out,
             2 * config.train.steps);
}

void run(const Options& o) {
  if (o.help_config) {
    fmt::print("{}", help_config());
    return;
  }
  RunConfig config = resolve(o);
  if (o.print_config) {
    fmt::print("{}", print_config(config));
    return;
  }
  require(!o.out.empty(), "say where the run goes: --out RUN");
  require(!o.resume || !o.overwrite, "--resume goes on with a run, --overwrite removes it: choose one");
  require(o.resume || o.overwrite || !holds_run(o.out),
          "{}: holds a run already: --resume goes on with it, --overwrite starts it anew", o.out);
  make_paths_absolute(config);
  at::set_num_threads(default_threads());
  TrainingSetup setup = prepare_training(config);
  const auto mode = o.resume      ? RunDirectory::Mode::resume
                    : o.overwrite ? RunDirectory::Mode::overwrite
                                  : RunDirectory::Mode::fresh;
  const RunDirectory directory(o.out, mode);
  if (!o.no_plan) setup.planned_step_seconds = planned_step(setup);
  catch_stop_signals();
  std::signal(SIGXFSZ, SIG_IGN);  // a file-size limit is an error of the write, as a full disk is
  const TrainingResult result = train(setup, directory, o.resume);
  if (result.signal != 0) {
    log::warn("stopped by {} after step {} of {}; saved {}; go on with: sinew train --out {} --resume",
              result.signal == SIGINT ? "SIGINT" : "SIGTERM", result.step, config.train.steps,
              result.checkpoint.string(), o.out);
    throw CLI::RuntimeError(128 + result.signal);
  }
  summarise(o, result, config, setup.planned_step_seconds);
}

}  // namespace

void add_train(CLI::App& app) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("train", "Train a model on data sets made by `sinew data`");
  command->footer(
      "RUN holds config.toml, metrics.jsonl, TensorBoard events, checkpoints/ and, at the end, model/ (a "
      "Hugging\n"
      "Face directory). SIGINT and SIGTERM finish the step, save and leave with 128 plus the signal's "
      "number; a\n"
      "second SIGINT leaves at once.\n\n"
      "Examples:\n"
      "  sinew train --config configs/runs/demo.toml --set data.path=out/data --out out/run\n"
      "  sinew train --config base.toml --config mine.toml --set optimizer.lr=1e-3 --out out/run\n"
      "  sinew train --out out/run --resume\n"
      "  sinew train --help-config\n"
      "  sinew train --config configs/runs/demo.toml --set data.path=out/data --print-config");
  command->add_option("--config", options->configs, "Settings in TOML; later files win")->type_name("FILE");
  command->add_option("--set", options->sets, "One setting: section.key=value; wins over files")
      ->type_name("SETTING")
      ->expected(1)
      ->take_all();
  command->add_option("--out", options->out, "Folder of the run")->type_name("RUN");
  command->add_flag("--resume", options->resume, "Go on from the newest sound checkpoint of RUN");
  command->add_flag("--overwrite", options->overwrite, "Remove the run in RUN and start it anew");
  command->add_option("--device", options->device,
                      "auto, cpu, cuda or cuda:N (default auto: a GPU where there is one)");
  command->add_flag(
      "--no-plan", options->no_plan,
      "Do not time the operations first; else the log says what a step should take beside what it took");
  command->add_flag("--print-config", options->print_config,
                    "Print every setting, its value and where it came from");
  command->add_flag("--help-config", options->help_config, "Print every setting and what it means");
  command->callback([options] { run(*options); });
}

}  // namespace sinew::cli
