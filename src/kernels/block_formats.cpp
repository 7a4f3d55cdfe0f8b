#include "kernels/block_formats.hpp"

#include <strings.h>

#include <array>
#include <cstring>

#include "base/error.hpp"
#include "base/float_formats.hpp"

namespace sinew {
namespace {

constexpr std::array kFormats{
    BlockInfo{BlockFormat::f32, "f32", 1, 4},           BlockInfo{BlockFormat::f16, "f16", 1, 2},
    BlockInfo{BlockFormat::bf16, "bf16", 1, 2},         BlockInfo{BlockFormat::q8_0, "q8_0", 32, 34},
    BlockInfo{BlockFormat::q6_k, "q6_K", 256, 210},     BlockInfo{BlockFormat::q5_1, "q5_1", 32, 24},
    BlockInfo{BlockFormat::q5_k, "q5_K", 256, 176},     BlockInfo{BlockFormat::q5_0, "q5_0", 32, 22},
    BlockInfo{BlockFormat::q4_1, "q4_1", 32, 20},       BlockInfo{BlockFormat::q4_k, "q4_K", 256, 144},
    BlockInfo{BlockFormat::q4_0, "q4_0", 32, 18},       BlockInfo{BlockFormat::iq4_nl, "iq4_nl", 32, 18},
    BlockInfo{BlockFormat::iq4_xs, "iq4_xs", 256, 136}, BlockInfo{BlockFormat::q3_k, "q3_K", 256, 110},
    BlockInfo{BlockFormat::q2_k, "q2_K", 256, 84},
};

void dequantize_block(const BlockQ4_0& b, float* out) {
  const float d = half_to_float(b.d);
  for (std::size_t j = 0; j < 16; ++j) {
    out[j] = static_cast<float>((b.qs[j] & 15) - 8) * d;
    out[j + 16] = static_cast<float>((b.qs[j] >> 4) - 8) * d;
  }
}

void dequantize_block(const BlockQ4_1& b, float* out) {
  const float d = half_to_float(b.d), m = half_to_float(b.m);
  for (std::size_t j = 0; j < 16; ++j) {
    out[j] = static_cast<float>(b.qs[j] & 15) * d + m;
    out[j + 16] = static_cast<float>(b.qs[j] >> 4) * d + m;
  }
}

// The five-bit values of a block.
template <class Block>
void unpack_q5(const Block& b, int* out) {
  std::uint32_t high = 0;
  std::memcpy(&high, b.qh, 4);
  for (std::size_t j = 0; j < 16; ++j) {
    out[j] = static_cast<int>((b.qs[j] & 15u) | (((high >> j) & 1) << 4));
    out[j + 16] = static_cast<int>((b.qs[j] >> 4) | (((high >> (j + 16)) & 1) << 4));
  }
}

void dequantize_block(const BlockQ5_0& b, float* out) {
  const float d = half_to_float(b.d);
  int q[32];
  unpack_q5(b, q);
  for (std::size_t j = 0; j < 32; ++j) out[j] = static_cast<float>(q[j] - 16) * d;
}

void dequantize_block(const BlockQ5_1& b, float* out) {
  const float d = half_to_float(b.d), m = half_to_float(b.m);
  int q[32];
  unpack_q5(b, q);
  for (std::size_t j = 0; j < 32; ++j) out[j] = static_cast<float>(q[j]) * d + m;
}

void dequantize_block(const BlockQ8_0& b, float* out) {
  const float d = half_to_float(b.d);
  for (std::size_t j = 0; j < 32; ++j) out[j] = static_cast<float>(b.qs[j]) * d;
}

// Groups of 16; the two bits of an element lie at shift 2 * (group / 2 % 4) of 32 bytes for each half of the
// block.
void dequantize_block(const BlockQ2K& b, float* out) {
  const float d = half_to_float(b.d), dmin = half_to_float(b.dmin);
  for (std::size_t group = 0; group < 16; ++group) {
    const float scale = d * static_cast<float>(b.scales[group] & 15),
                min = dmin * static_cast<float>(b.scales[group] >> 4);
    const std::uint8_t* q = b.qs + group / 8 * 32 + group % 2 * 16;
    const std::size_t shift = group % 8 / 2 * 2;
    for (std::size_t j = 0; j < 16; ++j)
      out[group * 16 + j] = scale * static_cast<float>((q[j] >> shift) & 3) - min;
  }
}

void dequantize_block(const BlockQ3K& b, float* out) {
  const float d = half_to_float(b.d);
  std::uint8_t scales[16];
  unpack_scales_q3k(b.scales, scales);
  for (std::size_t group = 0; group < 16; ++group) {
    const float scale = d * static_cast<float>(static_cast<int>(scales[group]) - 32);
    const std::uint8_t* q = b.qs + group / 8 * 32 + group % 2 * 16;
    const std::uint8_t* high = b.hmask + group % 2 * 16;
    const std::size_t shift = group % 8 / 2 * 2, bit = group / 2;
    for (std::size_t j = 0; j < 16; ++j) {
      const int value = ((q[j] >> shift) & 3) - (((high[j] >> bit) & 1) != 0 ? 0 : 4);
      out[group * 16 + j] = scale * static_cast<float>(value);
    }
  }
}

void dequantize_block(const BlockQ4K& b, float* out) {
  const float d = half_to_float(b.d), dmin = half_to_float(b.dmin);
  for (std::size_t group = 0; group < 8; ++group) {
    const ScaleMin sm = scale_min_k4(b.scales, group);
    const float scale = d * static_cast<float>(sm.scale), min = dmin * static_cast<float>(sm.min);
    const std::uint8_t* q = b.qs + group / 2 * 32;
    const std::size_t shift = group % 2 * 4;
    for (std::size_t j = 0; j < 32; ++j)
      out[group * 32 + j] = scale * static_cast<float>((q[j] >> shift) & 15) - min;
  }
}

void dequantize_block(const BlockQ5K& b, float* out) {
  const float d = half_to_float(b.d), dmin = half_to_float(b.dmin);
  for (std::size_t group = 0; group < 8; ++group) {
    const ScaleMin sm = scale_min_k4(b.scales, group);
    const float scale = d * static_cast<float>(sm.scale), min = dmin * static_cast<float>(sm.min);
    const std::uint8_t* q = b.qs + group / 2 * 32;
    const std::size_t shift = group % 2 * 4;
    for (std::size_t j = 0; j < 32; ++j) {
      const int value = ((q[j] >> shift) & 15) | (((b.qh[j] >> group) & 1) << 4);
      out[group * 32 + j] = scale * static_cast<float>(value) - min;
    }
  }
}

void dequantize_block(const BlockQ6K& b, float* out) {
  const float d = half_to_float(b.d);
  for (std::size_t group = 0; group < 16; ++group) {
    const float scale = d * static_cast<float>(b.scales[group]);
    // Each half of the block: four runs of 32 elements, the first two in low halves of 64 bytes, then in high
    // halves.
    const std::size_t half = group / 8, run = group % 8 / 2, first = group % 2 * 16;
    const std::uint8_t* low = b.ql + half * 64 + run % 2 * 32 + first;
    const std::uint8_t* high = b.qh + half * 32 + first;
    for (std::size_t j = 0; j < 16; ++j) {
      const int value = ((low[j] >> (run / 2 * 4)) & 15) | (((high[j] >> (run * 2)) & 3) << 4);
      out[group * 16 + j] = scale * static_cast<float>(value - 32);
    }
  }
}

void dequantize_iq4(float scale, const std::uint8_t* q, float* out) {
  for (std::size_t j = 0; j < 16; ++j) {
    out[j] = scale * static_cast<float>(kIQ4Levels[q[j] & 15]);
    out[j + 16] = scale * static_cast<float>(kIQ4Levels[q[j] >> 4]);
  }
}

void dequantize_block(const BlockIQ4NL& b, float* out) { dequantize_iq4(half_to_float(b.d), b.qs, out); }

void dequantize_block(const BlockIQ4XS& b, float* out) {
  const float d = half_to_float(b.d);
  for (std::size_t group = 0; group < 8; ++group) {
    dequantize_iq4(d * static_cast<float>(scale_iq4xs(b, group) - 32), b.qs + group * 16, out + group * 32);
  }
}

// Blocks in a file may lie at any address.
template <class Block>
void dequantize_blocks(const std::byte* blocks, float* out, std::size_t count, std::size_t elements) {
  for (std::size_t i = 0; i < count / elements; ++i) {
    Block block;
    std::memcpy(&block, blocks + i * sizeof(Block), sizeof(Block));
    dequantize_block(block, out + i * elements);
  }
}

template <class Convert>
void widen(const std::byte* source, float* out, std::size_t count, Convert convert) {
  for (std::size_t i = 0; i < count; ++i) {
    std::uint16_t bits;
    std::memcpy(&bits, source + 2 * i, 2);
    out[i] = convert(bits);
  }
}

}  // namespace

std::span<const BlockInfo> block_formats() { return kFormats; }

const BlockInfo* find_block_format(std::uint32_t ggml_type) {
  for (const BlockInfo& info : kFormats) {
    if (static_cast<std::uint32_t>(info.format) == ggml_type) return &info;
  }
  return nullptr;
}

const BlockInfo* find_block_format(std::string_view name) {
  for (const BlockInfo& info : kFormats) {
    if (info.name.size() == name.size() && strncasecmp(info.name.data(), name.data(), name.size()) == 0)
      return &info;
  }
  return nullptr;
}

const BlockInfo& block_info(BlockFormat format) {
  const BlockInfo* info = find_block_format(static_cast<std::uint32_t>(format));
  ensure(info != nullptr, "no block format {}", static_cast<std::uint32_t>(format));
  return *info;
}

HalfPlaces half_places(BlockFormat format) {
  switch (format) {
    case BlockFormat::q4_1:
      return {offsetof(BlockQ4_1, d), offsetof(BlockQ4_1, m)};
    case BlockFormat::q5_1:
      return {offsetof(BlockQ5_1, d), offsetof(BlockQ5_1, m)};
    case BlockFormat::q2_k:
      return {offsetof(BlockQ2K, d), offsetof(BlockQ2K, dmin)};
    case BlockFormat::q3_k:
      return {offsetof(BlockQ3K, d), -1};
    case BlockFormat::q4_k:
      return {offsetof(BlockQ4K, d), offsetof(BlockQ4K, dmin)};
    case BlockFormat::q5_k:
      return {offsetof(BlockQ5K, d), offsetof(BlockQ5K, dmin)};
    case BlockFormat::q6_k:
      return {offsetof(BlockQ6K, d), -1};
    default:
      return {0, -1};  // d comes first
  }
}

std::size_t block_bytes(BlockFormat format, std::size_t count) {
  const BlockInfo& info = block_info(format);
  ensure(count % info.elements == 0, "{} elements are no whole blocks of {}", count, info.name);
  return count / info.elements * info.bytes;
}

void dequantize(BlockFormat format, const std::byte* blocks, float* out, std::size_t count) {
  ensure(count % block_info(format).elements == 0, "{} elements are no whole blocks of {}", count,
         block_info(format).name);
  switch (format) {
    case BlockFormat::f32:
      std::memcpy(out, blocks, count * sizeof(float));
      return;
    case BlockFormat::f16:
      return widen(blocks, out, count, half_to_float);
    case BlockFormat::bf16:
      return widen(blocks, out, count, bfloat16_to_float);
    case BlockFormat::q4_0:
      return dequantize_blocks<BlockQ4_0>(blocks, out, count, kSmallBlock);
    case BlockFormat::q4_1:
      return dequantize_blocks<BlockQ4_1>(blocks, out, count, kSmallBlock);
    case BlockFormat::q5_0:
      return dequantize_blocks<BlockQ5_0>(blocks, out, count, kSmallBlock);
    case BlockFormat::q5_1:
      return dequantize_blocks<BlockQ5_1>(blocks, out, count, kSmallBlock);
    case BlockFormat::q8_0:
      return dequantize_blocks<BlockQ8_0>(blocks, out, count, kSmallBlock);
    case BlockFormat::q2_k:
      return dequantize_blocks<BlockQ2K>(blocks, out, count, kSuperBlock);
    case BlockFormat::q3_k:
      return dequantize_blocks<BlockQ3K>(blocks, out, count, kSuperBlock);
    case BlockFormat::q4_k:
      return dequantize_blocks<BlockQ4K>(blocks, out, count, kSuperBlock);
    case BlockFormat::q5_k:
      return dequantize_blocks<BlockQ5K>(blocks, out, count, kSuperBlock);
    case BlockFormat::q6_k:
      return dequantize_blocks<BlockQ6K>(blocks, out, count, kSuperBlock);
    case BlockFormat::iq4_nl:
      return dequantize_blocks<BlockIQ4NL>(blocks, out, count, kSmallBlock);
    case BlockFormat::iq4_xs:
      return dequantize_blocks<BlockIQ4XS>(blocks, out, count, kSuperBlock);
  }
}

}  // namespace sinew
