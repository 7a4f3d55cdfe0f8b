// SwiGLU networks of packed quantized weights, all that a layer's tokens chose as one work list: gate, up and
// activation of every network, then down of every network, with the activations brought to 8 bits once each.
#pragma once

#include <span>

#include "kernels/quant_matmul.hpp"

namespace sinew {

struct PackedSwiglu {
  PackedMatrix gate, up, down;  // [width, hidden], [width, hidden], [hidden, width]
};

// One network and the rows it works on.
struct QuantExpertWork {
  const PackedSwiglu* weights = nullptr;
  const std::int32_t* tokens = nullptr;  // [count] rows of x; null: 0, 1, ..
  const float* factor = nullptr;         // [count] of each result; null: 1
  index_t count = 0;
};

// y [tokens, hidden] += the results of all networks, token by token in the order of the list, on the team. x
// [tokens, hidden]; hidden and every width a multiple of 16.
void quant_experts(Isa isa, const float* x, index_t ld, index_t tokens, std::span<const QuantExpertWork> work,
                   float* y, index_t ldy);

}  // namespace sinew
