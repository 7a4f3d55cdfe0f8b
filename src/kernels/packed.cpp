#include "kernels/packed.hpp"

#include <algorithm>
#include <cstring>

#include "base/error.hpp"
#include "base/index.hpp"

namespace sinew {
namespace {

constexpr index_t kRows = kPackedRows;

// The codes of one row's block in the order of its columns.
template <std::size_t N>
void nibbles_of_32(const std::uint8_t (&qs)[N], std::uint8_t* code) {  // 32 columns in each 16 bytes
  for (std::size_t j = 0; j < 16; ++j) {
    code[j] = qs[j] & 15;
    code[j + 16] = qs[j] >> 4;
  }
}
void fifth_bits(const std::uint8_t (&qh)[4], std::uint8_t* code) {
  for (std::size_t j = 0; j < 32; ++j)
    code[j] = static_cast<std::uint8_t>(code[j] | (((qh[j / 8] >> (j % 8)) & 1) << 4));
}
void nibbles_of_64(const std::uint8_t (&qs)[128], std::uint8_t* code) {  // 64 columns in each 32 bytes
  for (std::size_t i = 0; i < 4; ++i)
    for (std::size_t j = 0; j < 32; ++j) {
      code[i * 64 + j] = qs[i * 32 + j] & 15;
      code[i * 64 + 32 + j] = qs[i * 32 + j] >> 4;
    }
}
void pairs_of_128(const std::uint8_t (&qs)[64], std::uint8_t* code) {  // 128 columns in each 32 bytes
  for (std::size_t i = 0; i < 8; ++i)
    for (std::size_t j = 0; j < 32; ++j) code[i * 32 + j] = (qs[i / 4 * 32 + j] >> (i % 4 * 2)) & 3;
}

void codes(const BlockQ4_0& b, std::uint8_t* out) { nibbles_of_32(b.qs, out); }
void codes(const BlockQ4_1& b, std::uint8_t* out) { nibbles_of_32(b.qs, out); }
void codes(const BlockIQ4NL& b, std::uint8_t* out) { nibbles_of_32(b.qs, out); }
void codes(const BlockQ5_0& b, std::uint8_t* out) {
  nibbles_of_32(b.qs, out);
  fifth_bits(b.qh, out);
}
void codes(const BlockQ5_1& b, std::uint8_t* out) {
  nibbles_of_32(b.qs, out);
  fifth_bits(b.qh, out);
}
void codes(const BlockQ8_0& b, std::uint8_t* out) {
  for (std::size_t j = 0; j < 32; ++j) out[j] = static_cast<std::uint8_t>(b.qs[j] + 128);
}
void codes(const BlockQ2K& b, std::uint8_t* out) { pairs_of_128(b.qs, out); }
void codes(const BlockQ3K& b, std::uint8_t* out) {
  pairs_of_128(b.qs, out);
  for (std::size_t i = 0; i < 8; ++i)
    for (std::size_t j = 0; j < 32; ++j)
      out[i * 32 + j] = static_cast<std::uint8_t>(out[i * 32 + j] | (((b.hmask[j] >> i) & 1) << 2));
}
void codes(const BlockQ4K& b, std::uint8_t* out) { nibbles_of_64(b.qs, out); }
void codes(const BlockQ5K& b, std::uint8_t* out) {
  nibbles_of_64(b.qs, out);
  for (std::size_t i = 0; i < 8; ++i)
    for (std::size_t j = 0; j < 32; ++j)
      out[i * 32 + j] = static_cast<std::uint8_t>(out[i * 32 + j] | (((b.qh[j] >> i) & 1) << 4));
}
void codes(const BlockQ6K& b, std::uint8_t* out) {
  for (std::size_t i = 0; i < 8; ++i)
    for (std::size_t j = 0; j < 32; ++j) {
      const std::size_t half = i / 4, run = i % 4;
      const unsigned low = (b.ql[half * 64 + run % 2 * 32 + j] >> (run / 2 * 4)) & 15u;
      out[i * 32 + j] = static_cast<std::uint8_t>(low | (((b.qh[half * 32 + j] >> (run * 2)) & 3u) << 4));
    }
}
void codes(const BlockIQ4XS& b, std::uint8_t* out) {
  for (std::size_t i = 0; i < 8; ++i)
    for (std::size_t j = 0; j < 16; ++j) {
      out[i * 32 + j] = b.qs[i * 16 + j] & 15;
      out[i * 32 + 16 + j] = b.qs[i * 16 + j] >> 4;
    }
}

// Scales of one row's block into body and head of a tile, each value at its row's place.
struct Place {
  std::byte *head, *body;
  index_t row;
  void put16(index_t half, std::uint16_t value) const { std::memcpy(head + half * 32 + row * 2, &value, 2); }
  std::byte& scale(index_t line) const { return body[line * kRows + row]; }
  void or_scale(index_t line, unsigned bits) const { scale(line) |= static_cast<std::byte>(bits); }
};

template <class Block>
void scales(const Block& b, const Place& place) {
  place.put16(0, b.d);
}
void scales(const BlockQ4_1& b, const Place& place) {
  place.put16(0, b.d);
  place.put16(1, b.m);
}
void scales(const BlockQ5_1& b, const Place& place) {
  place.put16(0, b.d);
  place.put16(1, b.m);
}
void scales(const BlockQ2K& b, const Place& place) {
  place.put16(0, b.d);
  place.put16(1, b.dmin);
  for (index_t g = 0; g < 16; ++g) place.or_scale(g, b.scales[g]);
}
void scales(const BlockQ3K& b,
            const Place& place) {  // lines 0..7: low bits of two groups; 8..11: high of four
  place.put16(0, b.d);
  std::uint8_t s[16];
  unpack_scales_q3k(b.scales, s);
  for (index_t g = 0; g < 16; ++g) {
    place.or_scale(g / 2, (s[g] & 15u) << (g % 2 * 4));
    place.or_scale(8 + g / 4, (s[g] >> 4) << (g % 4 * 2));
  }
}
// Lines 0..7: low bits of a group's scale and minimum; 8..11: the high bits of two groups.
template <class Block>
void scales_k4(const Block& b, const Place& place) {
  place.put16(0, b.d);
  place.put16(1, b.dmin);
  for (index_t g = 0; g < 8; ++g) {
    const ScaleMin sm = scale_min_k4(b.scales, size(g));
    place.or_scale(g, (sm.scale & 15u) | (sm.min & 15u) << 4);
    place.or_scale(8 + g / 2, ((sm.scale >> 4) | (sm.min >> 4) << 2) << (g % 2 * 4));
  }
}
void scales(const BlockQ4K& b, const Place& place) { scales_k4(b, place); }
void scales(const BlockQ5K& b, const Place& place) { scales_k4(b, place); }
void scales(const BlockQ6K& b, const Place& place) {
  place.put16(0, b.d);
  for (index_t g = 0; g < 16; ++g) place.or_scale(g, static_cast<std::uint8_t>(b.scales[g]));
}
void scales(const BlockIQ4XS& b, const Place& place) {  // lines 0..3: low bits of two groups
  place.put16(0, b.d);
  for (index_t g = 0; g < 8; ++g) {
    const auto s = static_cast<unsigned>(scale_iq4xs(b, size(g)));
    place.or_scale(g / 2, (s & 15u) << (g % 2 * 4));
    place.head[32 + g / 4 * 16 + place.row] |= static_cast<std::byte>((s >> 4) << (g % 4 * 2));
  }
}

// Bits [shift, shift + bits) of 32 codes of each row into lines of 64 bytes.
void pack_bits(const std::uint8_t (&code)[kRows][kSuperBlock], index_t column, int shift, int bits,
               std::byte* out) {
  const int per_line = 8 / bits;
  const std::uint32_t mask = 0x01010101U * ((1U << bits) - 1U);
  for (index_t r = 0; r < kRows; ++r) {
    std::uint32_t word[8];
    std::memcpy(word, code[r] + column, 32);
    for (int line = 0; line < bits; ++line) {
      std::uint32_t sum = 0;
      for (int i = 0; i < per_line; ++i) sum |= ((word[line * per_line + i] >> shift) & mask) << (i * bits);
      std::memcpy(out + line * 64 + r * 4, &sum, 4);
    }
  }
}

template <class Block>
void pack_tile(const PackedLayout& layout, const std::byte* blocks, index_t rows, index_t cols,
               std::byte* out) {
  const index_t count = cols / layout.elements;
  const std::size_t row_bytes = size(count) * sizeof(Block);
  std::byte* const bodies = out + layout.heads(cols);
  std::memset(out, 0, size(layout.tile_bytes(cols)));
  std::uint8_t code[kRows][kSuperBlock] = {};
  for (index_t i = 0; i < count; ++i) {
    std::byte *const head = out + i * layout.head, *const body = bodies + i * layout.body();
    for (index_t r = 0; r < rows; ++r) {
      Block b;
      std::memcpy(&b, blocks + size(r) * row_bytes + size(i) * sizeof(Block), sizeof(Block));
      scales(b, {head, body, r});
      codes(b, code[r]);
    }
    for (index_t c = 0; c < layout.elements; c += 32) {
      std::byte* const chunk = body + layout.scale_bytes + c / 32 * layout.chunk_bytes();
      pack_bits(code, c, 0, layout.low_bits, chunk);
      if (layout.high_bits > 0)
        pack_bits(code, c, layout.low_bits, layout.high_bits, chunk + 64 * layout.low_bits);
    }
  }
}

using PackTile = void (*)(const PackedLayout&, const std::byte*, index_t, index_t, std::byte*);
PackTile tile_packer(BlockFormat format) {
  switch (format) {
    case BlockFormat::q4_0:
      return pack_tile<BlockQ4_0>;
    case BlockFormat::q4_1:
      return pack_tile<BlockQ4_1>;
    case BlockFormat::q5_0:
      return pack_tile<BlockQ5_0>;
    case BlockFormat::q5_1:
      return pack_tile<BlockQ5_1>;
    case BlockFormat::q8_0:
      return pack_tile<BlockQ8_0>;
    case BlockFormat::iq4_nl:
      return pack_tile<BlockIQ4NL>;
    case BlockFormat::q2_k:
      return pack_tile<BlockQ2K>;
    case BlockFormat::q3_k:
      return pack_tile<BlockQ3K>;
    case BlockFormat::q4_k:
      return pack_tile<BlockQ4K>;
    case BlockFormat::q5_k:
      return pack_tile<BlockQ5K>;
    case BlockFormat::q6_k:
      return pack_tile<BlockQ6K>;
    case BlockFormat::iq4_xs:
      return pack_tile<BlockIQ4XS>;
    default:
      return nullptr;
  }
}

}  // namespace

std::size_t packed_bytes(BlockFormat format, index_t rows, index_t cols) {
  const PackedLayout layout = packed_layout(format);
  ensure(packable(format) && cols % layout.elements == 0, "{} columns of {} cannot be packed", cols,
         block_info(format).name);
  return size(round_up(rows, kRows) / kRows * layout.tile_bytes(cols));
}

void pack_tiles(BlockFormat format, const std::byte* blocks, index_t rows, index_t cols, index_t first,
                index_t count, std::byte* out) {
  ensure(packed_bytes(format, rows, cols) > 0 || rows == 0, "nothing to pack");
  const PackedLayout layout = packed_layout(format);
  const PackTile pack = tile_packer(format);
  const std::size_t row_bytes = block_bytes(format, size(cols));
  for (index_t t = 0; t < count; ++t) {
    const index_t row = (first + t) * kRows;
    pack(layout, blocks + size(row) * row_bytes, std::min(kRows, rows - row), cols,
         out + t * layout.tile_bytes(cols));
  }
}

}  // namespace sinew
