// A training checkpoint to a Hugging Face model directory, tensor by tensor: the model is never in memory
// as a whole.
#pragma once

#include <cstdint>
#include <filesystem>

#include "storage/checkpoint.hpp"

namespace sinew {

// Writes config.json, the tokenizer's files and model*.safetensors (with an index when in several) into
// `out`, which is made or replaced as a whole. `dtype` F32, BF16 or F16; tensors that every format keeps in
// fp32 (e_score_correction_bias) stay so. Throws UserError when the checkpoint lacks a tensor of the model.
void export_checkpoint(const CheckpointReader& checkpoint, const std::filesystem::path& out, DType dtype,
                       std::uint64_t max_shard_bytes = std::uint64_t{5} << 30);

}  // namespace sinew
