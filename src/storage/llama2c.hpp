// Checkpoints and tokenizers of karpathy/llama2.c: the fp32 file of its legacy export (version 0: seven int32
// sizes, then every weight) and tokenizer.bin. Both are turned into the files of a Hugging Face directory.
#pragma once

#include <filesystem>
#include <string>

#include "config/model_config.hpp"

namespace sinew {

// The sizes in the header of a legacy checkpoint. Throws UserError when the file is none, or not of the
// length that its sizes need.
ModelConfig read_llama2c_config(const std::filesystem::path& checkpoint);

// Writes config.json and model.safetensors (F32) into `out`, which must exist. llama2.c rotates adjacent
// pairs and HF halves of a head, so the rows of q_proj and k_proj change places.
void convert_llama2c(const std::filesystem::path& checkpoint, const std::filesystem::path& out);

// The bytes of a SentencePiece tokenizer.model for a tokenizer.bin of `vocab_size` tokens.
std::string convert_llama2c_tokenizer(const std::filesystem::path& tokenizer, std::int64_t vocab_size);

}  // namespace sinew
