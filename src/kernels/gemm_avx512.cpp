#if defined(__x86_64__)
#define SINEW_WIDTH 16
#include "kernels/gemm_simd.hpp"
#include "kernels/gemm_tables.hpp"

namespace sinew {

const GemmKernels<float> gemm_fp32_avx512 = kernels_with<float>(block_fp32);
const GemmKernels<bf16> gemm_bf16_avx512 = kernels_with<bf16>(block_widened);

}  // namespace sinew
#endif
