// sinew inspect: what a file holds, and whether it is sound.
#include "inspect/inspect.hpp"

#include <fmt/format.h>

#include <memory>

#include "cli/commands.hpp"

namespace sinew::cli {

void add_inspect(Command app) {
  struct Options {
    std::string path;
    InspectOptions inspect;
    bool json = false;
  };
  auto options = std::make_shared<Options>();
  Command command = app.add_subcommand("inspect", "Say what a file holds, and whether it is sound");
  command.footer(
      "Reads config.json files and presets, Hugging Face model directories, safetensors, GGUF, tokenizers, "
      "data\n"
      "sets, checkpoints and metrics.jsonl. Exit code 0: sound; 2: not, and one line says what is wrong.\n"
      "Examples:\n"
      "  sinew inspect deepseek-v3\n"
      "  sinew inspect out/demo/run/model --all\n"
      "  sinew inspect model-q4.gguf --json");
  command.add_option("path", options->path, "File, folder or preset").required();
  command.add_flag("--all", options->inspect.all_tensors,
                   "List every tensor instead of groups of alike ones");
  command.add_flag("--json", options->json, "Print one JSON object");
  command.callback([options] {
    const Report report = inspect(options->path, options->inspect);
    fmt::print("{}", options->json ? report.json : report.text);
  });
}

}  // namespace sinew::cli
