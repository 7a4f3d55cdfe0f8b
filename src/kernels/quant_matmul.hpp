// y = x W^T for packed quantized weights: activations are brought to 8 bits once for all products that read
// them. Few tokens take the exact kernels, many the ones of 8-bit spans (quant_tables.hpp).
#pragma once

#include <span>

#include "kernels/quant_batch.hpp"

namespace sinew {

// Up to this many tokens weights are read code by code; above, they are unpacked.
inline constexpr index_t kFewTokens = 8;

struct QuantProduct {
  const PackedMatrix* w = nullptr;
  float* y = nullptr;  // [tokens, w->rows]
  index_t ldy = 0;
  const float* bias = nullptr;  // [w->rows] or null
};

// All products of x [tokens, cols], on the team. `isa` must have quant_kernels().
void quant_matmul(Isa isa, const float* x, index_t ld, index_t tokens, index_t cols,
                  std::span<const QuantProduct> products);

}  // namespace sinew
