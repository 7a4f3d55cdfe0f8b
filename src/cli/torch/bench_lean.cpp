// sinew bench lean: dense against mixtures of experts at equal training FLOPs and tokens.
#include <fmt/format.h>

#include <memory>

#include "base/error.hpp"
#include "base/files.hpp"
#include "base/text.hpp"
#include "base/threads.hpp"
#include "cli/commands.hpp"
#include "train/lean_report.hpp"

namespace sinew::cli {
namespace {

struct Options {
  LeanOptions lean;
  std::vector<std::string> data, kinds, sizes, dense_sizes;
  std::string out = "out/lean";
  bool json = false, report = false;
};

void run(Options& o) {
  LeanOptions& lean = o.lean;
  lean.program = fs::read_symlink("/proc/self/exe");
  lean.out = o.out;
  lean.data.assign(o.data.begin(), o.data.end());
  if (lean.data.empty()) {
    const fs::path demo = "out/demo/data";
    require(fs::exists(demo),
            "no text to train on: name files or folders with --data, or run ./dev demo, whose "
            "data set ({}) is the default",
            demo.string());
    lean.data = {demo};
  }
  if (!o.kinds.empty()) lean.kinds.clear();
  for (const auto& kind : o.kinds) lean.kinds.push_back(parse_lean_kind(kind));
  const auto read_sizes = [](const std::vector<std::string>& texts, std::vector<LeanSize>& sizes) {
    if (!texts.empty()) sizes.clear();
    for (const auto& text : texts)
      if (text != "none") sizes.push_back(parse_lean_size(text));
  };
  read_sizes(o.sizes, lean.sizes);
  read_sizes(o.dense_sizes, lean.dense_sizes);
  if (lean.jobs == 0) lean.jobs = std::max(1, default_threads() / lean.threads);
  const auto results = o.report ? finished_lean_results(lean) : lean_bench(lean);
  require(!results.empty(), "{}: no run is finished yet", o.out);
  const LeanReport report = lean_report(results);
  const std::string table = lean_markdown(report);
  write_file_atomic(lean.out / "lean.md", table);
  write_file_atomic(lean.out / "lean.svg", lean_svg(report, results));
  if (o.json)
    fmt::print("{}\n", lean_json(lean, report, results).dump(2));
  else
    fmt::print("{}\nPicture: {}\n", table, (lean.out / "lean.svg").string());
}

}  // namespace

void add_bench_lean(Command bench) {
  auto o = std::make_shared<Options>();
  o->lean.jobs = 0;
  Command command = bench.add_subcommand(
      "lean", "Losses of dense networks and mixtures of experts at equal training FLOPs and tokens");
  command.footer(
      "Kinds: dense; fine (7 of 32 small experts and a shared one, as DeepSeekMoE); top2 (2 of 8, as "
      "Mixtral). At "
      "each\n"
      "size they have the same attention and head and, to rounding, the same active parameters. Each run is "
      "a "
      "`sinew\n"
      "train` of one thread in OUT/runs, its result a file in OUT/results; stopped in any way and started "
      "again, "
      "the\n"
      "bench goes on. Says how much dense compute reaches each mixture's loss: a power law through the dense "
      "runs, "
      "and\n"
      "straight lines between their means. Writes OUT/lean.md and OUT/lean.svg. See docs/lean.md.\n\n"
      "Examples:\n"
      "  sinew bench lean --data books/\n"
      "  sinew bench lean --data books/ --sizes 64x4,128x5 --dense-sizes 160x6 --seeds 2 --tokens 2000000\n"
      "  sinew bench lean --data books/ --report --json");
  command.add_option("--data", o->data,
                     "Text files and folders, or one data set of `sinew data` (default out/demo/data)");
  command.add_option("--out", o->out, "Folder of everything (default out/lean)");
  command.add_option("--kinds", o->kinds, "dense, fine, top2 (default all)").delimiter(',');
  command.add_option("--sizes", o->sizes, "HIDDENxLAYERS of every kind (default 64x4,96x4,128x5)")
      .delimiter(',');
  command
      .add_option("--dense-sizes", o->dense_sizes,
                  "Further sizes of dense networks, for the law, or none (default 32x4,160x6,192x8)")
      .delimiter(',');
  command.add_option("--seeds", o->lean.seeds, "Runs of each, with seeds from 1")
      .range(1, 1000)
      .capture_default_str();
  command.add_option("--tokens", o->lean.tokens, "Of each run, in whole batches")
      .range(std::int64_t{1}, std::int64_t{1} << 40)
      .capture_default_str();
  command.add_option("--batch", o->lean.batch, "Sequences of a step").range(1, 65536).capture_default_str();
  command.add_option("--sequence", o->lean.sequence, "Tokens of a sequence")
      .range(8, 65536)
      .capture_default_str();
  command.add_option("--vocabulary", o->lean.vocabulary, "Of the tokenizer learned from text")
      .range(300, 65536)
      .capture_default_str();
  command
      .add_option("--lr", o->lean.lr,
                  "Peak learning rate at hidden 64, for every kind; falls as the root of hidden")
      .range(1e-6, 1.0)
      .capture_default_str();
  command.add_option("--dtype", o->lean.dtype, "bf16 or fp32").one_of({"bf16", "fp32"}).capture_default_str();
  command.add_option("--jobs", o->lean.jobs, "Runs at a time (default: cores over threads)").range(1, 1024);
  command.add_option("--threads", o->lean.threads, "Threads of a run").range(1, 1024).capture_default_str();
  command.add_flag("--report", o->report, "Train nothing: tables and picture of the runs that are finished");
  command.add_flag("--json", o->json, "Print the result as JSON");
  command.callback([o] { run(*o); });
}

}  // namespace sinew::cli
