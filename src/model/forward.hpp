// What every layer of a forward pass is told, and what mixture-of-experts layers tell back.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "model/language_model.hpp"
#include "ops/gate.hpp"
#include "ops/group.hpp"

namespace sinew {

// What a process works on of a row of T tokens (Partition::row): of the context group the positions that
// ring_positions() names, of those a run for each member of the tensor group. Between layers it holds the
// run; attention and dense feed-forward see the n = T / context of its tensor group.
struct RowCut {
  GroupPtr tensor, context;
  at::Tensor positions;             // [n] int64; undefined when the row is whole
  std::int64_t first = 0, own = 0;  // the run, of `positions`
  bool whole() const { return !positions.defined(); }
  at::Tensor of_context(const at::Tensor& x) const { return whole() ? x : x.index_select(1, positions); }
  at::Tensor of_process(const at::Tensor& x) const {
    return whole() ? x : x.index_select(1, positions.narrow(0, first, own));
  }
};

struct ForwardContext {
  at::Tensor cos, sin;   // [n, rope_dim/2], of the positions of this pass
  at::Tensor documents;  // [B, T] of the whole row, or undefined
  RowCut cut;
  std::int64_t row_tokens = 0;  // T, of which a cut row may hold some that stand for nothing:
  at::Tensor padding;           // [own] bool, or undefined: no router may count them
  KvCache* cache = nullptr;     // keys and values before these tokens; layers append theirs
  bool training = false;        // capacity drops tokens in training alone
  Recompute recompute = Recompute::none;
  BalanceOptions balance;
  ForwardTrace* trace = nullptr;
};

// `context`, whose cos and sin are of a whole row of `tokens`, for what the process of a partition works on.
void cut_context(ForwardContext& context, const Partition& partition, std::int64_t tokens, at::Device device);

// What one MoE layer reports of one pass.
struct RouterStats {
  std::int64_t layer = 0, tokens = 0;  // tokens of a whole row; what follows is of this process's tokens
  at::Tensor counts;                   // [B, E] int64: tokens that chose each expert, before any were dropped
  at::Tensor device_counts;  // [B, D] int64: tokens with an expert on each device; undefined if not asked for
  at::Tensor
      score_sum;     // [B, E]: sum over tokens of the scores, each token's normalised to 1; has the gradient
  at::Tensor z_sum;  // scalar: sum over tokens of logsumexp(logits)^2, with the gradient; or undefined
  std::int64_t dropped = 0;  // assignments dropped by capacity
};

}  // namespace sinew
