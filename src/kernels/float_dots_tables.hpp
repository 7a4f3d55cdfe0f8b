// The tables behind float_stream.hpp.
#pragma once

#include <cstddef>

#include "kernels/block_formats.hpp"
#include "kernels/gemm.hpp"

namespace sinew {

// out [tokens, count] (row stride ld_out) = x [tokens, cols] times `count` rows of weights one after another.
// `next`: what this thread reads then, fetched ahead (null: what follows in memory).
using DotRows = void (*)(const std::byte* rows, index_t count, index_t cols, const float* x, index_t ld,
                         index_t tokens, const std::byte* next, float* out, index_t ld_out);

struct FloatDotsTable {
  DotRows f32, f16, bf16;
};
extern const FloatDotsTable float_dots_avx2, float_dots_avx512, float_dots_neon;

}  // namespace sinew
