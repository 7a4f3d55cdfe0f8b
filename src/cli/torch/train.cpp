// sinew train
#include <fmt/format.h>

#include <ATen/Context.h>
#include <ATen/Parallel.h>

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <numeric>
#include <optional>

#include "base/error.hpp"
#include "base/files.hpp"
#include "base/log.hpp"
#include "base/signals.hpp"
#include "base/text.hpp"
#include "base/threads.hpp"
#include "cli/commands.hpp"
#include "cli/plan_here.hpp"
#include "cli/torch/ranks.hpp"
#include "comm/lost_rank.hpp"
#include "comm/rendezvous.hpp"
#include "config/run_config.hpp"
#include "ops/device.hpp"
#include "train/trainer.hpp"

namespace sinew::cli {
namespace {

constexpr int kStartGroup = 63;  // an id that no group of a mesh has

struct Options {
  std::vector<std::string> configs, sets;
  std::string out, device;
  int ranks = 0;
  bool resume = false, overwrite = false, print_config = false, help_config = false, no_plan = false;
  bool deterministic = false;
};

RunConfig resolve(const Options& o) {
  std::vector<std::string> files, sets = o.sets;
  const fs::path saved = fs::path(o.out) / "config.toml";
  if (o.resume && !o.out.empty() && fs::exists(saved)) files.push_back(saved.string());
  files.insert(files.end(), o.configs.begin(), o.configs.end());
  if (!o.device.empty()) sets.push_back("train.device=" + o.device);
  if (o.deterministic) sets.push_back("train.deterministic=true");
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
  const char* const sinew = program_invocation_name;  // as it was called
  fmt::print("Try next:\n");
  fmt::print("  {} generate {} --prompt \"{}\"\n", sinew, result.model.string(), config.eval.sample_prompt);
  fmt::print("  {} inspect {}\n", sinew, result.model.string());
  fmt::print("  {} train --out {} --resume --set train.steps={}   # go on training\n", sinew, o.out,
             2 * config.train.steps);
}

RunDirectory::Mode mode_of(const Options& o) {
  return o.resume      ? RunDirectory::Mode::resume
         : o.overwrite ? RunDirectory::Mode::overwrite
                       : RunDirectory::Mode::fresh;
}

TrainingResult train_here(TrainingSetup& setup, const RunDirectory& directory, bool resume) {
  catch_stop_signals();
  std::signal(SIGXFSZ, SIG_IGN);  // a file-size limit is an error of the write, as a full disk is
  return train(setup, directory, resume);
}

// What rank 0 says at the end; leaves the program where a signal ended the run.
void report(const Options& o, const TrainingResult& result, const RunConfig& config, double planned = 0) {
  if (result.signal != 0) {
    log::warn("stopped by {} after step {} of {}; saved {}; go on with: sinew train --out {} --resume",
              result.signal == SIGINT ? "SIGINT" : "SIGTERM", result.step, config.train.steps,
              result.checkpoint.string(), o.out);
    throw Leave{128 + result.signal};
  }
  summarise(o, result, config, planned);
}

// The launcher's word; a contradiction is told by rank 0 alone.
std::optional<Launch> launched() {
  try {
    return read_launch();
  } catch (const UserError&) {
    if (speaks_for_all()) throw;
    throw Leave{2};
  }
}

// All that a rank but the first says goes to its file, for it would only repeat or interrupt.
void open_log(const Options& o, int rank) {
  const fs::path logs = fs::path(o.out) / "logs";
  make_directories(logs);
  const auto path = logs / fmt::format("rank-{:05}.log", rank);
  if (rank == 0) return log::also_to(path.string());
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
  require(fd >= 0, "{}: cannot write: {}", path.string(), system_reason());
  ::dup2(fd, 1);
  ::dup2(fd, 2);
  ::close(fd);
}

// All ranks must be told the same; where files lie may differ from machine to machine.
void check_alike(const std::shared_ptr<Endpoint>& endpoint, RunConfig config) {
  std::vector<int> ranks(static_cast<std::size_t>(endpoint->size()));
  std::iota(ranks.begin(), ranks.end(), 0);
  Communicator world(endpoint, ranks, "start", kStartGroup);
  config.data.path.assign(1, "");
  config.model = {};
  config.train.device = "";
  const auto texts = gather_texts(world, to_toml(config));
  for (std::size_t rank = 1; rank < texts.size(); ++rank) {
    if (texts[rank] == texts[0]) continue;
    RunConfig first, other;
    apply_toml(first, texts[0], "rank 0");
    apply_toml(other, texts[rank], fmt::format("rank {}", rank));
    fail("rank {} was started with other settings than rank 0: {}", rank,
         join(config_differences(first, other), ", "));
  }
}

void train_as_rank(const Options& o, const RunConfig& config, const Launch& launch, Rendezvous& rendezvous) {
  EndpointOptions options;
  options.rank = launch.rank;
  options.size = launch.size;
  options.ranks_per_node = launch.local_size;
  options.timeout = config.layout.timeout;
  RunConfig own = config;
  const auto wanted = find_device(config.train.device);
  if (wanted.is_cuda() && launch.size > 1) own.train.device = fmt::format("cuda:{}", launch.local_rank);
  options.device = find_device(own.train.device);
  const auto endpoint = rendezvous.connect(options);
  check_alike(endpoint, config);
  TrainingSetup setup = prepare_training(own, endpoint);
  std::unique_ptr<RunDirectory> directory;
  const auto world = setup.mesh->world();
  const auto join = [&](RunDirectory::Mode mode) { directory = std::make_unique<RunDirectory>(o.out, mode); };
  together(*world, launch.rank == 0, [&] { join(mode_of(o)); });
  if (launch.rank != 0) join(RunDirectory::Mode::join);
  if (!o.no_plan) setup.planned_step_seconds = planned_step(setup);
  const auto result = train_here(setup, *directory, o.resume);
  if (launch.rank == 0) return report(o, result, config, setup.planned_step_seconds);
  if (result.signal != 0) throw Leave{128 + result.signal};
}

// Into rank 0's file alone: the terminal is told once, at the end.
void note(const Options& o, const std::string& text) {
  std::ofstream(fs::path(o.out) / "logs" / "rank-00000.log", std::ios::app) << "error: " << text << "\n";
}

void run_as_rank(const Options& o, const RunConfig& config, const Launch& launch) {
  share_cores(launch);
  if (launch.rank == 0) open_log(o, 0);
  Rendezvous rendezvous(launch, config.layout.timeout);
  try {
    train_as_rank(o, config, launch, rendezvous);
  } catch (const Leave&) {
    throw;  // said already
  } catch (const Error& error) {
    // Whoever failed first hangs up on the others before its word is there: they wait for it.
    if (dynamic_cast<const LostRank*>(&error) == nullptr || rendezvous.first_word().empty())
      rendezvous.leave_word(error.what());
    if (launch.rank != 0) throw;
    note(o, error.what());
    const auto first = rendezvous.first_word();
    if (first.empty() || first.starts_with("rank 0:") || first.ends_with(error.what())) throw;
    note(o, first);
    if (error.exit_code() == 2) throw UserError(first);
    throw Error(first);
  } catch (const std::exception& error) {  // libtorch's, with a page of addresses after the first line
    const std::string text = error.what();
    rendezvous.leave_word(text.substr(0, text.find('\n')));
    throw Error(text.substr(0, text.find('\n')));
  }
}

void run(const Options& o) {
  if (o.help_config) {
    fmt::print("{}", help_config());
    return;
  }
  const auto launch = launched();
  if (launch && launch->rank > 0 && !o.out.empty()) open_log(o, launch->rank);
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
  if (config.train
          .deterministic) {  // on a CPU everything is so already; on a GPU this chooses slower operations
    ::setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8", 0);
    at::globalContext().setDeterministicAlgorithms(true, false);
  }
  if (o.ranks > 1 && !launch) return run_as_ranks(o.ranks);
  require(!launch || o.ranks == 0 || o.ranks == launch->size,
          "--ranks {} asks for other processes than {} started ({})", o.ranks, launch ? launch->by : "",
          launch ? launch->size : 0);
  if (launch) return run_as_rank(o, config, *launch);
  at::set_num_threads(default_threads());
  TrainingSetup setup = prepare_training(config);
  const RunDirectory directory(o.out, mode_of(o));
  if (!o.no_plan) setup.planned_step_seconds = planned_step(setup);
  report(o, train_here(setup, directory, o.resume), config, setup.planned_step_seconds);
}

}  // namespace

void add_train(Command app) {
  auto options = std::make_shared<Options>();
  Command command = app.add_subcommand("train", "Train a model on data sets made by `sinew data`");
  command.footer(
      "RUN holds config.toml, metrics.jsonl, TensorBoard events, checkpoints/ and, at the end, model/ (a "
      "Hugging\n"
      "Face directory). SIGINT and SIGTERM finish the step, save and leave with 128 plus the signal's "
      "number; a\n"
      "second SIGINT leaves at once.\n\n"
      "Examples:\n"
      "  sinew train --config configs/runs/demo.toml --set data.path=out/data --out out/run\n"
      "  sinew train --config base.toml --config mine.toml --set optimizer.lr=1e-3 --out out/run\n"
      "  sinew train --out out/run --resume\n"
      "  sinew train --ranks 8 --config base.toml --set layout.shard=8 --set layout.expert=8 --out out/run\n"
      "  torchrun --no_python --nnodes 2 --nproc_per_node 4 ... sinew train --config base.toml --out "
      "out/run\n"
      "  sinew train --help-config\n"
      "  sinew train --config configs/runs/demo.toml --set data.path=out/data --print-config");
  command.add_option("--config", options->configs, "Settings in TOML; later files win").type_name("FILE");
  command.add_option("--set", options->sets, "One setting: section.key=value; wins over files")
      .type_name("SETTING")
      .expected(1)
      .take_all();
  command.add_option("--out", options->out, "Folder of the run").type_name("RUN");
  command.add_flag("--resume", options->resume, "Go on from the newest sound checkpoint of RUN");
  command.add_flag("--overwrite", options->overwrite, "Remove the run in RUN and start it anew");
  command.add_option("--device", options->device,
                     "auto, cpu, cuda or cuda:N (default auto: a GPU where there is one)");
  command.add_flag(
      "--no-plan", options->no_plan,
      "Do not time the operations first; else the log says what a step should take beside what it took");
  command
      .add_option("--ranks", options->ranks,
                  "Processes on this machine; for many machines use torchrun, srun or mpirun")
      .range(1, 4096);
  command.add_flag("--deterministic", options->deterministic,
                   "The same losses, bit for bit, from run to run of one layout, on a GPU too");
  command.add_flag("--print-config", options->print_config,
                   "Print every setting, its value and where it came from");
  command.add_flag("--help-config", options->help_config, "Print every setting and what it means");
  command.callback([options] { run(*options); });
}

}  // namespace sinew::cli
