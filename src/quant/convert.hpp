// `sinew convert`: from any format that Sinew reads to a Hugging Face directory or a GGUF file.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "kernels/block_formats.hpp"
#include "quant/gguf_names.hpp"

namespace sinew {

enum class SourceFormat { hf, gguf, llama2c };
// What lies at `path`: a directory with config.json, a GGUF file, or else a llama2.c checkpoint. Throws
// UserError when it is none of them.
SourceFormat detect_format(const std::filesystem::path& path);

struct ConvertOptions {
  std::filesystem::path source, out;
  std::filesystem::path tokenizer;  // llama2.c: empty means tokenizer.bin or tok<vocab>.bin beside the source
  std::optional<BlockFormat> type;  // f32, f16 or bf16; as the source has it when absent
  GgufOptions gguf;
  std::uint64_t max_shard_bytes = 5'000'000'000;  // of a Hugging Face directory
  bool force = false;                             // replace a model that is already at `out`
};
// Streams tensor by tensor: memory stays within tens of megabytes whatever the model.
void convert_model(const ConvertOptions& options);

}  // namespace sinew
