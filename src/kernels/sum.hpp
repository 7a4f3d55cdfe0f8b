// Sums of whole tensors in one pass.
#pragma once

#include <span>

#include "kernels/gemm.hpp"

namespace sinew {

// out [n] = the sum of all terms [n], at least one, added in fp32 in their order and rounded once.
template <class T>
void sum_terms(Isa isa, std::span<const T* const> terms, index_t n, T* out);

}  // namespace sinew
