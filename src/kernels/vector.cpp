#include "kernels/vector.hpp"

#include "kernels/vector_tables.hpp"

namespace sinew {

template <>
const VectorKernels<float>& vector_kernels<float>([[maybe_unused]] Isa isa) {
#if defined(__x86_64__)
  if (isa >= Isa::bf16) return vector_fp32_bf16;
  if (isa >= Isa::avx512) return vector_fp32_avx512;
  if (isa == Isa::avx2) return vector_fp32_avx2;
#endif
  return vector_fp32_scalar;
}

template <>
const VectorKernels<bf16>& vector_kernels<bf16>([[maybe_unused]] Isa isa) {
#if defined(__x86_64__)
  if (isa >= Isa::bf16) return vector_bf16_bf16;
  if (isa >= Isa::avx512) return vector_bf16_avx512;
  if (isa == Isa::avx2) return vector_bf16_avx2;
#endif
  return vector_bf16_scalar;
}

}  // namespace sinew
