#define SINEW_WIDTH 4
#include "kernels/gemm_simd.hpp"
#include "kernels/gemm_tables.hpp"

namespace sinew {

const GemmKernels<float> gemm_fp32_scalar = kernels_with<float>(block_fp32);
const GemmKernels<bf16> gemm_bf16_scalar = kernels_with<bf16>(block_widened);

}  // namespace sinew
