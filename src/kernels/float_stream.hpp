// Products of a few tokens with weights in F32, F16 or BF16 as they lie in the file: memory sets their pace.
// Activations stay fp32 and sums are fp32, whatever the weights are.
#pragma once

#include <span>

#include "kernels/block_formats.hpp"
#include "kernels/gemm.hpp"

namespace sinew {

// y [tokens, rows] = x [tokens, cols] times w^T (+ bias).
struct FloatProduct {
  BlockFormat format = BlockFormat::f32;
  const std::byte* w = nullptr;  // [rows, cols], rows one after another; need not be aligned
  index_t rows = 0, cols = 0;
  const float* x = nullptr;
  index_t ld = 0, tokens = 0;
  float* y = nullptr;
  index_t ldy = 0;
  const float* bias = nullptr;  // [rows] or null
};

// Whether float_products() takes this format with this instruction set.
bool streams_floats(Isa isa, BlockFormat format);

// All products of the list, on the team, in stretches (stretches.hpp). A token's results do not depend on
// which others are with it.
void float_products(Isa isa, std::span<const FloatProduct> products);

}  // namespace sinew
