// The gate of a mixture of experts: which experts a token goes to, and with what weight.
// DeepSeekMoE (Dai et al. 2024) eq 3-5; DeepSeek-V2 section 2.2.2; DeepSeek-V3 eq 12-16.
#pragma once

#include <ATen/core/Tensor.h>

#include "config/model_config.hpp"

namespace sinew {

struct GateOptions {
  ScoringFunc scoring = ScoringFunc::softmax;
  TopkMethod method = TopkMethod::greedy;
  std::int64_t top_k = 1;
  std::int64_t n_group = 1, topk_group = 1;  // equal, adjacent groups of experts; used unless greedy
  bool renormalize = false;                  // divide the chosen weights by their sum (+ 1e-20)
  double scale = 1;                          // routed_scaling_factor
};

// As the family's own code does it: DeepSeek-V2 renormalises or scales, never both.
GateOptions gate_options(const ModelConfig& config);

struct Routing {
  at::Tensor experts;  // [N, K] int64, by falling choice score; equal scores go to the lowest index
  at::Tensor weights;  // [N, K] fp32, with the gradient to the logits
  at::Tensor scores;   // [N, E] fp32: softmax or sigmoid of the logits, with the gradient
};

// logits [N, E] fp32 (or fp64). `bias` [E] or undefined: e_score_correction_bias, added for the choice
// alone. Group-limited methods keep the topk_group groups of best score (V2: the maximum; V3: the sum of the
// two best biased scores) and choose among their experts.
Routing gate(const at::Tensor& logits, const at::Tensor& bias, const GateOptions& options);

}  // namespace sinew
