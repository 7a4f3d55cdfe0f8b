// Scores and choice of experts of every token in one pass over the logits (DeepSeek-V2 section 2.2.2, V3 eq
// 12-16).
#pragma once

#include "kernels/gemm.hpp"

namespace sinew {

struct GateRule {
  bool softmax = true;  // scores: softmax over the experts, else sigmoid of each
  index_t experts = 0, top_k = 1;
  index_t groups = 1, kept_groups = 1;  // equal, adjacent groups; the choice is among the kept ones
  bool group_by_two = false;            // a group's score: the sum of its two best choices, else the best
  bool renormalize = false;             // divide the chosen scores by their sum (+ 1e-20)
  double scale = 1;
};

// logits [tokens, experts] -> scores likewise; chosen [tokens, top_k] by falling choice, equal ones by rising
// index; weight [tokens, top_k]. bias [experts] or null is added to the scores for the choice alone.
void gate_forward(Isa isa, const GateRule& rule, index_t tokens, const float* logits, const float* bias,
                  float* scores, std::int64_t* chosen, float* weight);

// d_logits from the gradients of weight and of scores (null: none).
void gate_backward(Isa isa, const GateRule& rule, index_t tokens, const float* scores,
                   const std::int64_t* chosen, const float* d_weight, const float* d_scores, float* d_logits);

}  // namespace sinew
