// sinew export
#include <fmt/format.h>

#include <memory>

#include "base/error.hpp"
#include "base/log.hpp"
#include "cli/commands.hpp"
#include "storage/export_checkpoint.hpp"

namespace sinew::cli {
namespace {

struct Options {
  std::string checkpoint, out, dtype = "fp32";
  bool overwrite = false;
};

// A checkpoint, the newest sound one of a run, or that of a folder of checkpoints.
std::unique_ptr<CheckpointReader> open_checkpoint(const fs::path& path) {
  require(fs::is_directory(path), "{}: no such checkpoint or run", path.string());
  if (fs::exists(path / "manifest.json") || path.filename().string().starts_with("step-"))
    return std::make_unique<CheckpointReader>(path);
  const fs::path root = fs::exists(path / "checkpoints") ? path / "checkpoints" : path;
  auto reader = open_newest_checkpoint(
      root, [](const std::string& why) { log::warn("damaged checkpoint: {}; trying the one before", why); });
  require(reader != nullptr, "{}: holds no checkpoint", path.string());
  return reader;
}

void run(const Options& o) {
  require(o.overwrite || !fs::exists(o.out) || (fs::is_directory(o.out) && fs::is_empty(o.out)),
          "{}: exists already; --overwrite replaces it", o.out);
  const auto reader = open_checkpoint(o.checkpoint);
  export_checkpoint(*reader, o.out,
                    o.dtype == "fp32"   ? DType::F32
                    : o.dtype == "bf16" ? DType::BF16
                                        : DType::F16);
  fmt::print("{}\n", o.out);
  log::info("step {} of {} is now the model {}", reader->state().step, reader->path().string(), o.out);
}

}  // namespace

void add_export(Command app) {
  auto options = std::make_shared<Options>();
  Command command =
      app.add_subcommand("export", "Make a Hugging Face model directory from a training checkpoint");
  command.footer(
      "Examples:\n"
      "  sinew export out/run out/model                            # the newest checkpoint\n"
      "  sinew export out/run/checkpoints/step-200 out/model --dtype bf16");
  command.add_option("checkpoint", options->checkpoint, "A checkpoint, or a run: its newest sound one")
      .required();
  command.add_option("out", options->out, "The model directory to make").required();
  command.add_option("--dtype", options->dtype, "Of the weights")
      .one_of({"fp32", "bf16", "fp16"})
      .capture_default_str();
  command.add_flag("--overwrite", options->overwrite, "Replace OUT if it exists");
  command.callback([options] { run(*options); });
}

}  // namespace sinew::cli
