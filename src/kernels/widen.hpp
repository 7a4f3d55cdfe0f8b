// Rows of the formats that caches and unquantized weights have, as floats: the same numbers as dequantize()
// of block_formats.hpp, with the vectors of each instruction set.
#pragma once

#include "kernels/block_formats.hpp"
#include "kernels/isa.hpp"

namespace sinew {

// `n` elements, whole blocks.
using WidenRow = void (*)(const std::byte* row, std::size_t n, float* out);
// Null where there is no more than dequantize(): formats other than f16, bf16, q8_0 and q4_0.
WidenRow widen_row(Isa isa, BlockFormat format);

// dequantize() by the fastest way the instruction set in use has.
void widen(BlockFormat format, const std::byte* row, std::size_t n, float* out);

}  // namespace sinew
