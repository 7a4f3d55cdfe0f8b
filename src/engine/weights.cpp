#include "engine/weights.hpp"

#include <algorithm>
#include <cstring>
#include <vector>

#include "base/error.hpp"
#include "base/float_formats.hpp"
#include "base/index.hpp"
#include "kernels/widen.hpp"
#include "quant/gguf_export.hpp"
#include "quant/quantize_rows.hpp"

namespace sinew::engine {
namespace {

void fp8_row(const WeightMatrix& w, index_t row, float* out) {
  const auto* const bytes = reinterpret_cast<const std::uint8_t*>(w.data) + size(row) * w.row_bytes;
  const index_t blocks = (w.cols + kFp8Block - 1) / kFp8Block;
  for (index_t b = 0; b < blocks; ++b) {
    const float scale = w.scales != nullptr ? w.scales[row / kFp8Block * blocks + b] : 1.0F;
    for (index_t i = b * kFp8Block; i < std::min(w.cols, (b + 1) * kFp8Block); ++i)
      out[i] = scale * (w.storage == Storage::f8_e4m3 ? float8_e4m3_to_float(bytes[i])
                                                      : float8_e5m2_to_float(bytes[i]));
  }
}

}  // namespace

void weight_rows(const WeightMatrix& w, index_t first, index_t count, float* out, index_t ld) {
  for (index_t r = 0; r < count; ++r) {
    float* const to = out + r * ld;
    if (w.storage != Storage::blocks)
      fp8_row(w, first + r, to);
    else
      widen(w.format, w.data + size(first + r) * w.row_bytes, size(w.cols), to);
  }
}

WeightMatrix row_range(const WeightMatrix& w, index_t first, index_t count) {
  ensure(first >= 0 && count >= 0 && first + count <= w.rows, "rows {}..{} of {}", first, first + count,
         w.name);
  ensure(w.packed == nullptr && (w.scales == nullptr || first % kFp8Block == 0), "a range of '{}'", w.name);
  WeightMatrix part = w;
  part.rows = count;
  part.data += size(first) * w.row_bytes;
  if (w.scales != nullptr) part.scales += first / kFp8Block * ((w.cols + kFp8Block - 1) / kFp8Block);
  return part;
}

WeightMatrix own_matrix(std::string name, index_t rows, index_t cols, const float* values,
                        BlockFormat format) {
  WeightMatrix w{.name = std::move(name), .rows = rows, .cols = cols, .format = format};
  w.row_bytes = block_bytes(format, size(cols));
  const auto bytes = std::make_shared<std::vector<std::byte>>(w.bytes());
  if (block_info(format).elements == 1)
    encode_float(format, values, size(rows * cols), bytes->data());
  else
    quantize_rows(format, values, rows, cols, nullptr, bytes->data(), Rounding::plain);
  w.data = bytes->data();
  w.owner = bytes;
  return w;
}

}  // namespace sinew::engine
