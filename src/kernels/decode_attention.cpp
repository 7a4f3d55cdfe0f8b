#include "kernels/decode_attention.hpp"

#include "kernels/decode_attention_tables.hpp"

namespace sinew {

const DecodeKernels& decode_kernels([[maybe_unused]] Isa isa, [[maybe_unused]] BlockFormat format) {
#if defined(__x86_64__)
  if (format != BlockFormat::f32 && isa >= Isa::amx) return decode_amx;
  if (format != BlockFormat::f32 && isa >= Isa::bf16) return decode_bf16;
  if (isa >= Isa::avx512) return decode_avx512;
  if (isa >= Isa::avx2) return decode_avx2;
#endif
  return decode_scalar;
}

}  // namespace sinew
