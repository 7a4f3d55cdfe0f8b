// Rows of numbers as 8-bit blocks for the road: 1 x 128 tiles of E4M3, each with an fp32 scale that maps its
// largest magnitude to 448 (DeepSeek-V3 section 3.3.2).
#pragma once

#include <ATen/core/Tensor.h>

namespace sinew {

struct Fp8Rows {
  at::Tensor codes;   // [N, H] uint8
  at::Tensor scales;  // [N, ceil(H / 128)] fp32
};
Fp8Rows to_fp8_rows(const at::Tensor& x);  // x [N, H], any floating type
at::Tensor from_fp8_rows(const Fp8Rows& rows, at::ScalarType type);

}  // namespace sinew
