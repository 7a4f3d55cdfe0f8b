// Rotary position embedding: the frequencies a config asks for, whichever way it stretches them.
#pragma once

#include <vector>

#include "config/model_config.hpp"

namespace sinew {

// [rope_dim / 2] radians per position of pair j: theta^(-2j/rope_dim), then linear, llama3 or YaRN scaling
// as transformers' modeling_rope_utils.py and DeepSeek's modeling_deepseek.py do it.
std::vector<double> rope_frequencies(const ModelConfig& config);

// What cos and sin are multiplied by: YaRN's mscale ratio (1 for the released DeepSeek models), else 1.
double rope_attention_factor(const ModelConfig& config);

}  // namespace sinew
