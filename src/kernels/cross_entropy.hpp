// The output head and its cross-entropy in one pass, a piece of the tokens at a time: all logits never exist.
#pragma once

#include "kernels/gemm.hpp"

namespace sinew {

// The sum over tokens of -log softmax(hidden weight^T)[target]; targets of -100 are left out. hidden [tokens,
// n], weight [vocabulary, n], targets [tokens]. d_hidden [tokens, n] and d_weight [vocabulary, n] are set to
// the gradients of that sum, unless null (both or none).
template <class T>
double cross_entropy(Isa isa, index_t tokens, index_t n, index_t vocabulary, const T* hidden, const T* weight,
                     const std::int64_t* targets, T* d_hidden, float* d_weight);

}  // namespace sinew
