// The tokenizer of a model directory as `tokenizer.ggml.*` metadata and back. Beside llama.cpp's keys the
// files themselves are kept (`tokenizer.huggingface.json` of the GGUF specification,
// `sinew.tokenizer_config`), so that a directory made from our own file holds them unchanged.
#pragma once

#include <filesystem>

#include "config/model_config.hpp"
#include "storage/gguf.hpp"
#include "storage/gguf_writer.hpp"

namespace sinew {

// Adds the tokenizer of `directory` (tokenizer.model or a BPE tokenizer.json) to `metadata`; says so and adds
// nothing when there is none. The vocabulary is filled up to that of the model with unused tokens.
void add_tokenizer_metadata(const std::filesystem::path& directory, const ModelConfig& config,
                            GgufMetadata& metadata);

// Writes the tokenizer files that `file` holds into `directory`.
void write_tokenizer_files(const Gguf& file, const std::filesystem::path& directory);

}  // namespace sinew
