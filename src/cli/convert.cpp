// sinew convert: between model formats.
#include <fmt/format.h>

#include <memory>

#include "base/error.hpp"
#include "base/signals.hpp"
#include "cli/commands.hpp"
#include "quant/convert.hpp"

namespace sinew::cli {

void add_convert(Command app) {
  auto options = std::make_shared<ConvertOptions>();
  auto type = std::make_shared<std::string>();
  Command command = app.add_subcommand("convert", "Convert a model between formats");
  command
      .add_option("SOURCE", options->source, "A Hugging Face directory, a GGUF file or a llama2.c checkpoint")
      .required();
  command.add_option("OUT", options->out, "A directory (Hugging Face), or a file ending in .gguf").required();
  command.add_option("--tokenizer", options->tokenizer,
                     "llama2.c: the tokenizer.bin (default: the one beside SOURCE)");
  command.add_option("--type", *type,
                     "f32, f16 or bf16 (default: as in SOURCE; quantized weights become bf16)");
  command.add_flag("--joined-kv-b", options->gguf.joined_kv_b,
                   "deepseek2: one attn_kv_b tensor, for llama.cpp of before April 2025");
  command.add_flag("--mtp", options->gguf.mtp,
                   "Keep the multi-token-prediction layers, which llama.cpp does not take");
  command.add_flag("--force", options->force, "Replace a model that is already at OUT");
  command.footer(
      "Examples:\n"
      "  sinew convert stories260K.bin stories260K           # llama2.c to Hugging Face\n"
      "  sinew convert stories15M.bin stories15M --tokenizer tokenizer.bin\n"
      "  sinew convert DeepSeek-V2-Lite v2-lite.gguf         # Hugging Face to GGUF\n"
      "  sinew convert v2-lite.gguf v2-lite --type bf16      # and back");
  command.callback([options, type] {
    if (!type->empty()) {
      const BlockInfo* info = find_block_format(*type);
      require(info != nullptr, "convert: --type {}: expected f32, f16 or bf16", *type);
      options->type = info->format;
    }
    catch_stop_signals();
    convert_model(*options);
    fmt::print("{}\n", options->out.string());
  });
}

}  // namespace sinew::cli
