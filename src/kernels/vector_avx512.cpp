#if defined(__x86_64__)
#define SINEW_WIDTH 16
#include "kernels/vector_simd.hpp"
#include "kernels/vector_tables.hpp"

namespace sinew {

const VectorKernels<float> vector_fp32_avx512 = vector_table<float>();
const VectorKernels<bf16> vector_bf16_avx512 = vector_table<bf16>();

}  // namespace sinew
#endif
