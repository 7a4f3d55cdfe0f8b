#include "kernels/widen.hpp"

#include <cstring>

#include "kernels/widen_tables.hpp"

namespace sinew {

namespace {

const WidenTable* table_of([[maybe_unused]] Isa isa) {
#if defined(__x86_64__)
  if (isa >= Isa::avx512) return &widen_avx512;
  if (isa == Isa::avx2) return &widen_avx2;
#elif defined(__aarch64__)
  if (isa >= Isa::neon) return &widen_neon;
#endif
  return nullptr;
}

}  // namespace

WidenRow widen_row(Isa isa, BlockFormat format) {
  const WidenTable* const table = table_of(isa);
  if (table == nullptr) return nullptr;
  if (format == BlockFormat::f16) return table->f16;
  if (format == BlockFormat::bf16) return table->bf16;
  if (format == BlockFormat::q8_0) return table->q8_0;
  if (format == BlockFormat::q4_0) return table->q4_0;
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
