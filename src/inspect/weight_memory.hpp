// The size of a model's weights in a storage format.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "config/model_config.hpp"

namespace sinew {

struct WeightFormat {
  std::string_view name;   // as people write it: "BF16", "Q4_K"
  double bits = 0;         // per weight of a matrix
  std::int64_t block = 1;  // weights of a row that share scales
};

// F32, BF16, FP8, Q8_0 and the K formats of GGUF from 6 to 2 bits.
std::span<const WeightFormat> weight_formats();

// Bytes of one tensor. Matrices have the format's bits; norms and biases are F32 in FP8 and the Q formats,
// and so is the gate of the experts. FP8 is the recipe of the V3 release: 128 x 128 blocks with an F32 scale,
// and embedding and head in BF16. A row that is no whole number of blocks falls back to Q8_0, then F16, as in
// llama.cpp.
double weight_bytes(const TensorSpec& spec, const WeightFormat& format);

struct WeightMemory {
  double total = 0, active = 0, mtp = 0;  // bytes; active: what one token reads, total without MTP
};
WeightMemory weight_memory(const ModelConfig& config, const WeightFormat& format);

}  // namespace sinew
