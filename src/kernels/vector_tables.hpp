// The tables that the files of each instruction set define; for vector.cpp alone.
#pragma once

#include "kernels/vector.hpp"

namespace sinew {

extern const VectorKernels<float> vector_fp32_scalar;
extern const VectorKernels<bf16> vector_bf16_scalar;
#if defined(__x86_64__)
extern const VectorKernels<float> vector_fp32_avx2, vector_fp32_avx512, vector_fp32_bf16;
extern const VectorKernels<bf16> vector_bf16_avx2, vector_bf16_avx512, vector_bf16_bf16;
#endif

}  // namespace sinew
