// Rounding to block formats: the search for a block's scales, and the packing of the result.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/block_formats.hpp"

namespace sinew {

inline constexpr std::size_t kMaxGroups = 16;

// The scales of one block. Element j of group g stands for step[g] * level + offset[g].
struct BlockFit {
  std::uint16_t d = 0, second = 0;  // bits of the block's scale, and of its minimum or minimum's scale
  std::int16_t scales[kMaxGroups] = {}, mins[kMaxGroups] = {};  // whole numbers that multiply them, as stored
  float step[kMaxGroups] = {}, offset[kMaxGroups] = {};
};

// How a block of a format is divided, and what its elements can be.
struct BlockShape {
  std::size_t groups, group_size;
  int low, high;  // levels; of IQ4 formats: 0..15, numbers in kIQ4Levels
  bool table;     // IQ4
};
BlockShape block_shape(BlockFormat format);  // of the quantized formats

// Finds scales for the block `x` that make sum w (x - value)^2 small, and the nearest levels for them. `w`
// may be null (all ones). The search tries more scales than ggml's and settles whole-number scales and the
// block's own scale in turn; it never does worse than plain rounding.
void fit_block(BlockFormat format, const float* x, const float* w, BlockFit& fit, std::int8_t* levels);

// Plain rounding as ggml's reference does it for Q8_0, Q4_0, Q4_1, Q5_0 and Q5_1, bit for bit.
void fit_block_plain(BlockFormat format, const float* x, BlockFit& fit, std::int8_t* levels);

// The nearest level for one value of group `group`.
int nearest_level(BlockFormat format, const BlockFit& fit, std::size_t group, float value);
float level_value(BlockFormat format, const BlockFit& fit, std::size_t group, int level);

void pack_block(BlockFormat format, const BlockFit& fit, const std::int8_t* levels, std::byte* out);

}  // namespace sinew
