// What every layer of a forward pass is told, and what mixture-of-experts layers tell back.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "model/language_model.hpp"
#include "ops/gate.hpp"

namespace sinew {

struct ForwardContext {
  at::Tensor cos, sin;       // [T, rope_dim/2], of the positions of this pass
  at::Tensor documents;      // [B, T] or undefined
  KvCache* cache = nullptr;  // keys and values before these tokens; layers append theirs
  bool training = false;     // capacity drops tokens in training alone
  Recompute recompute = Recompute::none;
  BalanceOptions balance;
  ForwardTrace* trace = nullptr;
};

// What one MoE layer reports of one pass.
struct RouterStats {
  std::int64_t layer = 0, tokens = 0;  // tokens of a row
  at::Tensor counts;                   // [B, E] int64: tokens that chose each expert, before any were dropped
  at::Tensor device_counts;  // [B, D] int64: tokens with an expert on each device; undefined if not asked for
  at::Tensor
      score_sum;     // [B, E]: sum over tokens of the scores, each token's normalised to 1; has the gradient
  at::Tensor z_sum;  // scalar: sum over tokens of logsumexp(logits)^2, with the gradient; or undefined
  std::int64_t dropped = 0;  // assignments dropped by capacity
};

}  // namespace sinew
