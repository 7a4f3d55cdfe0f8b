#include "quant/quantize_rows.hpp"

#include "quant/block_fit.hpp"
#include "quant/gguf_export.hpp"

namespace sinew {

void quantize_rows(BlockFormat format, const float* values, std::int64_t rows, std::int64_t cols,
                   const float* importance, std::byte* out, Rounding rounding) {
  const BlockInfo& info = block_info(format);
  if (info.elements == 1) return encode_float(format, values, static_cast<std::size_t>(rows * cols), out);
  const auto block = static_cast<std::int64_t>(info.elements);
  const BlockShape shape = block_shape(format);
  const bool plain = rounding == Rounding::plain && shape.groups == 1 && !shape.table;
  for (std::int64_t row = 0; row < rows; ++row) {
    for (std::int64_t col = 0; col < cols; col += block) {
      const float* x = values + row * cols + col;
      BlockFit fit;
      std::int8_t levels[kSuperBlock];
      if (plain) {
        fit_block_plain(format, x, fit, levels);
      } else {
        fit_block(format, x, importance == nullptr ? nullptr : importance + col, fit, levels);
      }
      pack_block(format, fit, levels, out);
      out += info.bytes;
    }
  }
}

}  // namespace sinew
