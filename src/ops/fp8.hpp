// The products of DeepSeek-V3's FP8 recipe (section 3.3), emulated: every operand of the three products of a
// linear layer is rounded to E4M3 with an fp32 scale for each 1 x 128 tile of activations and output
// gradients and each 128 x 128 block of weights; sums are fp32, 128 products at a time before they are
// scaled. It shows what the recipe does to a loss on any processor; it is slower than bf16.
#pragma once

#include <ATen/core/Tensor.h>

namespace sinew {

// Values of E4M3 (as fp32) and the scales that restore x: x[r, c] ~ codes[r, c] * scale[r, c / 128].
struct Fp8Matrix {
  at::Tensor codes;  // [R, C]
  at::Tensor scale;  // [R, ceil(C / 128)]; tiles of zeros have scale 1
};
Fp8Matrix fp8_tiles(const at::Tensor& x);                   // [R, C], 1 x 128
Fp8Matrix fp8_blocks(const at::Tensor& weight);             // [R, C], 128 x 128: equal scales in 128 rows
Fp8Matrix fp8_transposed_blocks(const at::Tensor& weight);  // the same numbers as of [C, R]
at::Tensor fp8_values(const Fp8Matrix& x);                  // codes times scales, fp32

// Nearest E4M3 value, ties to even; beyond 448 in magnitude 448.
float round_to_e4m3(float x);

// a [M, K] times b [N, K] transposed: fp32 [M, N].
at::Tensor fp8_product(const Fp8Matrix& a, const Fp8Matrix& b);

// x [N, in] times weight [out, in] transposed, in x's type, with FP8 products forward and backward. The
// gradient of the weight is made from 128 x 1 tiles, of the rounded x as the recipe keeps it.
at::Tensor fp8_project(const at::Tensor& x, const at::Tensor& weight);

// While one lives, project() and what is built on it (attention's projections, dense and expert networks; not
// the gate, the embedding, the head) compute in FP8, on every thread.
class Fp8Products {
 public:
  Fp8Products();
  ~Fp8Products();
  Fp8Products(const Fp8Products&) = delete;
  Fp8Products& operator=(const Fp8Products&) = delete;
  static bool active();
};

}  // namespace sinew
