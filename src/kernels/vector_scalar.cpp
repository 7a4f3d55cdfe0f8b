#define SINEW_WIDTH 4
#include "kernels/vector_simd.hpp"
#include "kernels/vector_tables.hpp"

namespace sinew {

const VectorKernels<float> vector_fp32_scalar = vector_table<float>();
const VectorKernels<bf16> vector_bf16_scalar = vector_table<bf16>();

}  // namespace sinew
