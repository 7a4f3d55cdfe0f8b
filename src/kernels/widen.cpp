#include "kernels/widen.hpp"

#include <cstring>

#include "kernels/widen_tables.hpp"

namespace sinew {

WidenRow widen_row([[maybe_unused]] Isa isa, [[maybe_unused]] BlockFormat format) {
#if defined(__x86_64__)
  if (isa == Isa::scalar) return nullptr;
  const WidenTable& table = isa >= Isa::avx512 ? widen_avx512 : widen_avx2;
  if (format == BlockFormat::f16) return table.f16;
  if (format == BlockFormat::bf16) return table.bf16;
  if (format == BlockFormat::q8_0) return table.q8_0;
  if (format == BlockFormat::q4_0) return table.q4_0;
#endif
  return nullptr;
}

void widen(BlockFormat format, const std::byte* row, std::size_t n, float* out) {
  if (format == BlockFormat::f32) {
    std::memcpy(out, row, n * sizeof(float));
  } else if (const WidenRow row_function = widen_row(active_isa(), format)) {
    row_function(row, n, out);
  } else {
    dequantize(format, row, out, n);
  }
}

}  // namespace sinew
