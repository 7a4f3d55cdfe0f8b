// Rotary position embedding (Su et al. 2021) in both layouts.
#pragma once

#include <ATen/core/Tensor.h>

#include "config/model_config.hpp"

namespace sinew {

// Rotates x [B, T, heads, d] by the angles whose cosines and sines are cos, sin [T, d/2]. Pair j is
// (x[2j], x[2j+1]) in the interleaved layout (DeepSeek) and (x[j], x[j+d/2]) in the half layout (Llama,
// Mixtral, Qwen); the result keeps x's layout and type.
at::Tensor rope(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin, RopeLayout layout);

}  // namespace sinew
