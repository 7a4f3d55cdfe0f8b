// sinew convert: between model formats.
#include <fmt/format.h>

#include <memory>

#include "cli/commands.hpp"
#include "quant/convert.hpp"

namespace sinew::cli {

void add_convert(CLI::App& app) {
  auto options = std::make_shared<ConvertOptions>();
  CLI::App* command = app.add_subcommand("convert", "Convert a model between formats");
  command
      ->add_option("SOURCE", options->source,
                   "A Hugging Face directory, a GGUF file or a llama2.c checkpoint")
      ->required();
  command->add_option("OUT", options->out, "A directory (Hugging Face), or a file ending in .gguf")
      ->required();
  command->add_option("--tokenizer", options->tokenizer,
                      "llama2.c: the tokenizer.bin (default: the one beside SOURCE)");
  command->add_flag("--force", options->force, "Replace a model that is already at OUT");
  command->footer(
      "Examples:\n"
      "  sinew convert stories260K.bin stories260K           # llama2.c to Hugging Face\n"
      "  sinew convert stories15M.bin stories15M --tokenizer tokenizer.bin");
  command->callback([options] {
    convert_model(*options);
    fmt::print("{}\n", options->out.string());
  });
}

}  // namespace sinew::cli
