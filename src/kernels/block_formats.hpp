// The weight formats of ggml that Sinew computes with (ggml-common.h describes the layouts): blocks of 32 or
// 256 consecutive elements of a row share a scale. The scalar dequantization here is the reference: it gives
// the same bits as ggml's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace sinew {

// Numbers are those of ggml_type, as GGUF files hold them.
enum class BlockFormat : std::uint32_t {
  f32 = 0,
  f16 = 1,
  q4_0 = 2,
  q4_1 = 3,
  q5_0 = 6,
  q5_1 = 7,
  q8_0 = 8,
  q2_k = 10,
  q3_k = 11,
  q4_k = 12,
  q5_k = 13,
  q6_k = 14,
  iq4_nl = 20,
  iq4_xs = 23,
  bf16 = 30,
};

struct BlockInfo {
  BlockFormat format;
  std::string_view name;  // as ggml spells it: "q4_K"
  std::size_t elements;   // of a block
  std::size_t bytes;      // of a block
  double bits() const {
    return 8.0 * static_cast<double>(bytes) / static_cast<double>(elements);
  }  // per weight
};

std::span<const BlockInfo> block_formats();  // all, from F32 down
const BlockInfo& block_info(BlockFormat format);
const BlockInfo* find_block_format(std::uint32_t ggml_type);  // null when not supported
const BlockInfo* find_block_format(std::string_view name);    // any case, e.g. "Q4_K"; null when unknown
// Bytes of `count` elements, a multiple of the block.
std::size_t block_bytes(BlockFormat format, std::size_t count);

// Where a block holds its half-precision scale and, for formats that have one, its minimum (else -1). Not of
// formats of one element.
struct HalfPlaces {
  int scale, minimum;
};
HalfPlaces half_places(BlockFormat format);

// `count` elements, a multiple of the block.
void dequantize(BlockFormat format, const std::byte* blocks, float* out, std::size_t count);

// The layouts. Half-precision scales are kept as bits (base/float_formats.hpp).
inline constexpr std::size_t kSmallBlock = 32, kSuperBlock = 256;

struct BlockQ4_0 {
  std::uint16_t d;
  std::uint8_t qs[16];  // element j in the low half of byte j, j + 16 in the high half; as in all below
};
struct BlockQ4_1 {
  std::uint16_t d, m;
  std::uint8_t qs[16];
};
struct BlockQ5_0 {
  std::uint16_t d;
  std::uint8_t qh[4];  // bit j is the fifth bit of element j
  std::uint8_t qs[16];
};
struct BlockQ5_1 {
  std::uint16_t d, m;
  std::uint8_t qh[4];
  std::uint8_t qs[16];
};
struct BlockQ8_0 {
  std::uint16_t d;
  std::int8_t qs[32];
};
struct BlockQ2K {
  std::uint8_t scales[16];  // of 16 elements each: scale in the low half, minimum in the high half
  std::uint8_t qs[64];
  std::uint16_t d, dmin;
};
struct BlockQ3K {
  std::uint8_t hmask[32];
  std::uint8_t qs[64];
  std::uint8_t scales[12];  // sixteen 6-bit scales, see unpack_scales_q3k
  std::uint16_t d;
};
struct BlockQ4K {
  std::uint16_t d, dmin;
  std::uint8_t scales[12];  // eight 6-bit scales and minima of 32 elements each, see scale_min_k4
  std::uint8_t qs[128];
};
struct BlockQ5K {
  std::uint16_t d, dmin;
  std::uint8_t scales[12];
  std::uint8_t qh[32];
  std::uint8_t qs[128];
};
struct BlockQ6K {
  std::uint8_t ql[128];
  std::uint8_t qh[64];
  std::int8_t scales[16];  // of 16 elements each
  std::uint16_t d;
};
struct BlockIQ4NL {
  std::uint16_t d;
  std::uint8_t qs[16];
};
struct BlockIQ4XS {
  std::uint16_t d;
  std::uint16_t scales_h;
  std::uint8_t scales_l[4];
  std::uint8_t qs[128];
};
static_assert(sizeof(BlockQ4_0) == 18 && sizeof(BlockQ4_1) == 20 && sizeof(BlockQ5_0) == 22 &&
              sizeof(BlockQ5_1) == 24);
static_assert(sizeof(BlockQ8_0) == 34 && sizeof(BlockQ2K) == 84 && sizeof(BlockQ3K) == 110 &&
              sizeof(BlockQ4K) == 144);
static_assert(sizeof(BlockQ5K) == 176 && sizeof(BlockQ6K) == 210 && sizeof(BlockIQ4NL) == 18 &&
              sizeof(BlockIQ4XS) == 136);

// The sixteen levels of IQ4_NL and IQ4_XS.
inline constexpr std::int8_t kIQ4Levels[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                               1,    13,   25,  38,  53,  69,  89,  113};

struct ScaleMin {
  std::uint8_t scale, min;
};
// Scale and minimum of group `j` (0..7) of a Q4_K or Q5_K block: 6 bits each; those of the last four groups
// are split into 4 low bits and 2 high ones.
inline ScaleMin scale_min_k4(const std::uint8_t* scales, std::size_t j) {
  const auto byte = [](unsigned value) { return static_cast<std::uint8_t>(value); };
  if (j < 4) return {byte(scales[j] & 63), byte(scales[j + 4] & 63)};
  return {byte((scales[j + 4] & 15) | ((scales[j - 4] >> 6) << 4)),
          byte((scales[j + 4] >> 4) | ((scales[j] >> 6) << 4))};
}

// The sixteen scales (0..63, 32 means zero) of a Q3_K block.
inline void unpack_scales_q3k(const std::uint8_t* scales, std::uint8_t* out) {
  for (std::size_t j = 0; j < 16; ++j) {
    const unsigned low = j < 8 ? scales[j] & 15u : scales[j - 8] >> 4;
    out[j] = static_cast<std::uint8_t>(low | (((scales[8 + j % 4] >> (2 * (j / 4))) & 3u) << 4));
  }
}

// The scale (0..63, 32 means zero) of group `j` (0..7) of an IQ4_XS block.
inline int scale_iq4xs(const BlockIQ4XS& block, std::size_t j) {
  return ((block.scales_l[j / 2] >> (4 * (j % 2))) & 15) | (((block.scales_h >> (2 * j)) & 3) << 4);
}

}  // namespace sinew
