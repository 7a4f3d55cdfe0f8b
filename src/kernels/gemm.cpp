#include "kernels/gemm.hpp"

#include "kernels/gemm_tables.hpp"

namespace sinew {

template <>
const GemmKernels<float>& gemm_kernels<float>([[maybe_unused]] Isa isa) {
#if defined(__x86_64__)
  if (isa >= Isa::avx512) return gemm_fp32_avx512;
  if (isa == Isa::avx2) return gemm_fp32_avx2;
#endif
  return gemm_fp32_scalar;
}

template <>
const GemmKernels<bf16>& gemm_kernels<bf16>([[maybe_unused]] Isa isa) {
#if defined(__x86_64__)
  if (isa == Isa::amx) return gemm_bf16_amx;
  if (isa == Isa::bf16) return gemm_bf16_bf16;
  if (isa >= Isa::avx512) return gemm_bf16_avx512;
  if (isa == Isa::avx2) return gemm_bf16_avx2;
#endif
  return gemm_bf16_scalar;
}

template <>
const GemmKernels<float>& product_kernels<float>(Isa isa) {
#if defined(__x86_64__)
  if (isa == Isa::amx) return gemm_fp32_amx;
#endif
  return gemm_kernels<float>(isa);
}

template <>
const GemmKernels<bf16>& product_kernels<bf16>(Isa isa) {
  return gemm_kernels<bf16>(isa);
}

}  // namespace sinew
