// `sinew convert`: from any format that Sinew reads to a Hugging Face directory or a GGUF file.
#pragma once

#include <filesystem>
#include <string>

namespace sinew {

enum class SourceFormat { hf, gguf, llama2c };
// What lies at `path`: a directory with config.json, a GGUF file, or else a llama2.c checkpoint. Throws
// UserError when it is none of them.
SourceFormat detect_format(const std::filesystem::path& path);

struct ConvertOptions {
  std::filesystem::path source, out;
  std::filesystem::path tokenizer;  // llama2.c: empty means tokenizer.bin or tok<vocab>.bin beside the source
  bool force = false;               // replace a model that is already at `out`
};
void convert_model(const ConvertOptions& options);

}  // namespace sinew
