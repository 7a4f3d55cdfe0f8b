#include "kernels/quant_tables.hpp"

#include "kernels/quant_isa_tables.hpp"

namespace sinew {

const QuantKernels* quant_kernels([[maybe_unused]] Isa isa) {
#if defined(__x86_64__)
  if (isa == Isa::amx) return &quant_amx;
  if (isa >= Isa::vnni) return &quant_vnni;
  if (isa >= Isa::avx2) return &quant_avx2;  // AVX-512 without VNNI has no better integer products
#elif defined(__aarch64__)
  if (isa == Isa::dotprod) return &quant_dotprod;
  if (isa == Isa::neon) return &quant_neon;
#endif
  return nullptr;
}

}  // namespace sinew
