// The tables that the files of each instruction set define; for gemm.cpp alone.
#pragma once

#include "kernels/gemm.hpp"

namespace sinew {

extern const GemmKernels<float> gemm_fp32_scalar;
extern const GemmKernels<bf16> gemm_bf16_scalar;
#if defined(__x86_64__)
extern const GemmKernels<float> gemm_fp32_avx2, gemm_fp32_avx512, gemm_fp32_amx;
extern const GemmKernels<bf16> gemm_bf16_avx2, gemm_bf16_avx512, gemm_bf16_bf16, gemm_bf16_amx;
#endif

}  // namespace sinew
