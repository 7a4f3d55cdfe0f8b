// Causal attention over a sequence that several processes hold pieces of (ring attention, Liu et al. 2023):
// keys and values go round while each process attends with its own queries, so that none holds the whole
// sequence.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "ops/group.hpp"

namespace sinew {

// The positions of a row of `tokens` that member `rank` of `size` holds: pieces `rank` and 2 size - 1 - rank
// of 2 size equal ones, so that the causal mask leaves everyone the same work. `tokens` is a multiple of 2
// size. Of one process: all of them, in order.
std::vector<std::int64_t> ring_positions(std::int64_t tokens, std::int64_t size, std::int64_t rank);

// q [B, n, Hq, D], k [B, n, Hkv, D], v [B, n, Hkv, Dv] of this member's positions, rotated -> [B, n, Hq, Dv];
// query head h reads key head h / (Hq / Hkv). `documents` [B, size * n] of the whole row, or undefined: a
// query sees only keys of its own document. Softmax in fp32 for half types; gradients of keys and values are
// summed in that type on their way round.
at::Tensor ring_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, double scale,
                          const at::Tensor& documents, const GroupPtr& group);

}  // namespace sinew
