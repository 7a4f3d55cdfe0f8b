// ModelConfig as the metadata of a GGUF file, with the keys and conventions of llama.cpp (conversion/*.py,
// llama-model.cpp) for llama, qwen3moe and deepseek2. What those keys cannot say goes under `sinew.config`,
// the model's config.json, which other programs skip.
#pragma once

#include "config/model_config.hpp"
#include "quant/gguf_names.hpp"
#include "storage/gguf.hpp"
#include "storage/gguf_writer.hpp"

namespace sinew {

// Everything but the tokenizer and general.file_type.
GgufMetadata gguf_metadata(const ModelConfig& config, const std::string& name,
                           const GgufOptions& options = {});

// The config of a file by us or by llama.cpp. Throws UserError naming the key that is missing or not
// understood.
ModelConfig gguf_model_config(const Gguf& file);

// llama3 scaling: what llama.cpp divides each frequency by (its rope_freqs.weight), [rope_dim / 2].
std::vector<float> llama3_rope_factors(const ModelConfig& config);

}  // namespace sinew
