// Causal softmax attention, forward and backward, in tiles: memory grows with T, not with its square
// (FlashAttention, Dao et al. 2022, in the order that suits a processor's caches). Rotary embedding is part
// of it: heads are rotated as they are read, gradients are rotated back as they are written.
//
// A head of q and k is [plain | rotated] elements. MLA (DeepSeek-V2 section 2.1): the plain part of k is the
// head's own, the rotated part is shared by all heads (head stride 0). GQA: all of a head is in the rotated
// part, query head h reads key head h / (heads / kv_heads).
#pragma once

#include "kernels/gemm.hpp"

namespace sinew {

// Rows of one tensor: element i of head h of token n (= row * T + t) is at data[n * token + h * head + i].
template <class T>
struct HeadView {
  T* data = nullptr;
  index_t token = 0, head = 0;
  T* at(index_t n, index_t h) const { return data + n * token + h * head; }
};

struct AttentionSizes {
  index_t rows = 0, tokens = 0;  // B and T
  index_t heads = 0, kv_heads = 0;
  index_t plain = 0, rotated = 0, value = 0;  // elements of a head
  double scale = 1;
  const float* cos = nullptr;  // [T, rotated / 2]; null: nothing is rotated
  const float* sin = nullptr;
  bool interleaved = false;                 // pairs (0,1),(2,3).. or (j, j + rotated/2)
  const std::int32_t* documents = nullptr;  // [B, T]; null: one document a row

  index_t key() const { return plain + rotated; }
};

template <class T>
struct AttentionInputs {
  HeadView<const T> q;        // [plain | rotated]
  HeadView<const T> k_plain;  // unused where plain is 0
  HeadView<const T> k_rotated;
  HeadView<const T> v;
};

template <class T>
struct AttentionGradients {
  HeadView<T> q, k_plain, k_rotated, v;
};

// out: heads of `value`; lse [B, heads, T]: log of the sum of exp of the scaled scores, for backward.
template <class T>
void attention_forward(Isa isa, const AttentionSizes& sizes, const AttentionInputs<T>& in,
                       const HeadView<T>& out, float* lse);

// d_out and out as above. Writes all of the gradients. Where k_rotated has head stride 0 its gradient is the
// sum over the heads.
template <class T>
void attention_backward(Isa isa, const AttentionSizes& sizes, const AttentionInputs<T>& in,
                        const HeadView<const T>& out, const HeadView<const T>& d_out, const float* lse,
                        const AttentionGradients<T>& gradients);

}  // namespace sinew
