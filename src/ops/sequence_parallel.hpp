// Tensor parallelism with the sequence cut between its members (Shoeybi et al. 2019; Korthikanti et al.
// 2022).
//
// Between layers each member of the group holds its own tokens; matrices are cut by columns and then rows, so
// that a member needs every token on the way in and has a part of every sum on the way out. A gather on the
// way in and a sum-and-scatter on the way out carry the bytes of one all-reduce. Each is the other's backward
// pass. A null group, or one of size 1, costs nothing: the tensor is returned as it is.
#pragma once

#include <ATen/core/Tensor.h>

#include "ops/group.hpp"

namespace sinew {

// x [B, n, ..] of each member -> [B, size * n, ..], pieces in the order of ranks. The gradient of x is the
// sum over members of the gradients of its piece.
at::Tensor gather_tokens(const at::Tensor& x, const GroupPtr& group);

// x [B, size * n, ..], a part of a sum -> [B, n, ..]: piece rank() of the sum over the members.
at::Tensor scatter_token_sum(const at::Tensor& x, const GroupPtr& group);

// What the members hold of the first dimension, cut as part_begin() does, one after another: own [n, ..] ->
// [whole, ..]. Without gradients.
at::Tensor gather_parts(const at::Tensor& own, std::int64_t whole, const GroupPtr& group);

// The token embedding, its rows cut over the group. weight [v, H]: rows [first, first + v); tokens [B, size *
// n] of all members, the same on all -> [B, n, H] of this member's tokens.
at::Tensor vocabulary_embed(const at::Tensor& weight, std::int64_t first, const at::Tensor& tokens,
                            const GroupPtr& group);

// linear_cross_entropy() with the vocabulary cut over the group: the sum over this member's tokens, though
// every member works on all tokens; logits never travel, three numbers a token do. hidden [B, n, H] of this
// member's tokens, weight [v, H]: rows [first, first + v), targets [B, size * n] of all -> scalar, fp32 for
// half types. The gradients are those of the sum of what all members return, so all must scale theirs alike.
at::Tensor vocabulary_cross_entropy(const at::Tensor& hidden, const at::Tensor& weight, std::int64_t first,
                                    const at::Tensor& targets, const GroupPtr& group);

}  // namespace sinew
