// Rows of weights into any format of kernels/block_formats.hpp.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/block_formats.hpp"

namespace sinew {

enum class Rounding {
  plain,   // ggml's own for Q8_0 to Q5_1; the others are searched
  search,  // the scales with the least error
};

// `rows` x `cols` floats into `out` (rows * block_bytes(format, cols) bytes); `cols` is a multiple of the
// block. `importance` [cols], when not null, weighs the squared errors of each column. A pure function of
// each row.
void quantize_rows(BlockFormat format, const float* values, std::int64_t rows, std::int64_t cols,
                   const float* importance, std::byte* out, Rounding rounding = Rounding::search);

}  // namespace sinew
