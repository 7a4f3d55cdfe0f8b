// Cosines and sines of rotary position embedding (config/rope.hpp has the frequencies).
#pragma once

#include <ATen/core/Tensor.h>

#include "config/model_config.hpp"

namespace sinew {

struct RotaryTable {
  at::Tensor cos, sin;  // [positions, rope_dim/2], with YaRN's factor
};
RotaryTable rotary_table(const ModelConfig& config, std::int64_t positions, at::ScalarType type,
                         at::Device device);

}  // namespace sinew
