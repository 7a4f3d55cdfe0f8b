// Quantized weights laid out for vector instructions: sixteen rows of a matrix side by side, so that one
// vector of activations feeds sixteen sums without sums across lanes. The same bits as the blocks of
// block_formats.hpp, moved; nothing is rounded and nothing grows but padding.
//
// A tile is 16 rows: first a head for each of its K blocks, then the body of each. Head: the fp16 scale of
// each row, then where the format has one the fp16 minimum (IQ4_XS: the high bits of the scales). Body: the
// scales of the groups, then for each 32 columns the codes as unsigned numbers. Codes come in vectors of 64
// bytes: byte 4 r + i is row r, column 4 v + i of the 32, v = 0..7. Lines of the file hold (layout by bits)
//   8 bits: one vector;  4 bits: vector 2j in the low halves and 2j + 1 in the high halves, j = 0..3;
//   2 bits: vectors 4j .. 4j + 3, j = 0, 1, the first lowest;  1 bit: vector v in bit v.
#pragma once

#include <cstddef>

#include "kernels/block_formats.hpp"
#include "kernels/gemm.hpp"

namespace sinew {

inline constexpr index_t kPackedRows = 16;

struct PackedMatrix {
  BlockFormat format = BlockFormat::q4_k;
  index_t rows = 0, cols = 0;
  const std::byte* data = nullptr;  // packed_bytes(), aligned to 64
};

// How one format is packed; sizes in bytes for 16 rows.
struct PackedLayout {
  index_t elements;     // of a block
  index_t head;         // 32 or 64
  index_t scale_bytes;  // in the body
  int low_bits;         // 8, 4 or 2, then ..
  int high_bits;        // .. 0, 1 or 2 more for each code
  int bias;             // the number is scale * (code - bias) - minimum, or for IQ4 scale * level[code]

  constexpr index_t chunk_bytes() const { return 64 * (low_bits + high_bits); }  // 32 columns
  constexpr index_t body() const { return scale_bytes + elements / 32 * chunk_bytes(); }
  constexpr index_t heads(index_t cols) const { return round_up(cols / elements * head, 64); }
  constexpr index_t tile_bytes(index_t cols) const { return heads(cols) + cols / elements * body(); }
};

constexpr PackedLayout packed_layout(BlockFormat format) {
  switch (format) {
    case BlockFormat::q4_0:
      return {32, 32, 0, 4, 0, 8};
    case BlockFormat::q4_1:
      return {32, 64, 0, 4, 0, 0};
    case BlockFormat::q5_0:
      return {32, 32, 0, 4, 1, 16};
    case BlockFormat::q5_1:
      return {32, 64, 0, 4, 1, 0};
    case BlockFormat::q8_0:
      return {32, 32, 0, 8, 0, 128};
    case BlockFormat::iq4_nl:
      return {32, 32, 0, 4, 0, 128};
    case BlockFormat::q2_k:
      return {256, 64, 256, 2, 0, 0};
    case BlockFormat::q3_k:
      return {256, 32, 192, 2, 1, 4};
    case BlockFormat::q4_k:
      return {256, 64, 192, 4, 0, 0};
    case BlockFormat::q5_k:
      return {256, 64, 192, 4, 1, 0};
    case BlockFormat::q6_k:
      return {256, 32, 256, 4, 2, 32};
    case BlockFormat::iq4_xs:
      return {256, 64, 64, 4, 0, 128};
    default:
      return {0, 0, 0, 0, 0, 0};
  }
}

// Whether matrices of this format are packed at all (F32, F16 and BF16 are not).
constexpr bool packable(BlockFormat format) { return packed_layout(format).elements != 0; }

// Rows are padded to a multiple of 16 with zeros.
std::size_t packed_bytes(BlockFormat format, index_t rows, index_t cols);

// Tiles [first, first + count) of a matrix of `rows` rows of blocks one after another.
void pack_tiles(BlockFormat format, const std::byte* blocks, index_t rows, index_t cols, index_t first,
                index_t count, std::byte* out);

}  // namespace sinew
