// Levels and scales into the bytes of each format: the inverse of kernels/block_formats.cpp.
#include <cstring>

#include "base/error.hpp"
#include "quant/block_fit.hpp"

namespace sinew {
namespace {

std::uint8_t byte(int value) { return static_cast<std::uint8_t>(value); }

// Thirty-two 4-bit numbers: element j in the low half of byte j, j + 16 in the high half.
void pack_nibbles(const std::int8_t* levels, int bias, std::uint8_t* qs) {
  for (std::size_t j = 0; j < 16; ++j)
    qs[j] = byte(((levels[j] + bias) & 15) | (((levels[j + 16] + bias) & 15) << 4));
}

void pack_fifth_bits(const std::int8_t* levels, int bias, std::uint8_t* qh) {
  std::uint32_t bits = 0;
  for (std::size_t j = 0; j < 32; ++j) bits |= static_cast<std::uint32_t>(((levels[j] + bias) >> 4) & 1) << j;
  std::memcpy(qh, &bits, 4);
}

void pack(const BlockFit& fit, const std::int8_t* levels, BlockQ4_0& b) {
  b.d = fit.d;
  pack_nibbles(levels, 8, b.qs);
}

void pack(const BlockFit& fit, const std::int8_t* levels, BlockQ4_1& b) {
  b.d = fit.d;
  b.m = fit.second;
  pack_nibbles(levels, 0, b.qs);
}

void pack(const BlockFit& fit, const std::int8_t* levels, BlockQ5_0& b) {
  b.d = fit.d;
  pack_nibbles(levels, 16, b.qs);
  pack_fifth_bits(levels, 16, b.qh);
}

void pack(const BlockFit& fit, const std::int8_t* levels, BlockQ5_1& b) {
  b.d = fit.d;
  b.m = fit.second;
  pack_nibbles(levels, 0, b.qs);
  pack_fifth_bits(levels, 0, b.qh);
}

void pack(const BlockFit& fit, const std::int8_t* levels, BlockQ8_0& b) {
  b.d = fit.d;
  std::memcpy(b.qs, levels, 32);
}

// Two-bit fields of Q2_K and Q3_K.
void pack_twos(const std::int8_t* levels, int bias, std::uint8_t* qs) {
  for (std::size_t i = 0; i < kSuperBlock; ++i) {
    const std::size_t at = i / 128 * 32 + i % 32, shift = i % 128 / 32 * 2;
    qs[at] = byte(qs[at] | (((levels[i] + bias) & 3) << shift));
  }
}

void pack(const BlockFit& fit, const std::int8_t* levels, BlockQ2K& b) {
  b.d = fit.d;
  b.dmin = fit.second;
  for (std::size_t g = 0; g < 16; ++g) b.scales[g] = byte(fit.scales[g] | (fit.mins[g] << 4));
  pack_twos(levels, 0, b.qs);
}

void pack(const BlockFit& fit, const std::int8_t* levels, BlockQ3K& b) {
  b.d = fit.d;
  for (std::size_t g = 0; g < 16; ++g) {
    const int scale = fit.scales[g] + 32;
    b.scales[g % 8] = byte(b.scales[g % 8] | ((scale & 15) << (g < 8 ? 0 : 4)));
    b.scales[8 + g % 4] = byte(b.scales[8 + g % 4] | ((scale >> 4) << (2 * (g / 4))));
  }
  pack_twos(levels, 4, b.qs);
  for (std::size_t i = 0; i < kSuperBlock; ++i) {
    if (levels[i] >= 0) b.hmask[i % 32] = byte(b.hmask[i % 32] | (1 << (i / 32)));
  }
}

// Eight scales and minima of 6 bits: see scale_min_k4.
void pack_scales_k4(const BlockFit& fit, std::uint8_t* scales) {
  for (std::size_t j = 0; j < 4; ++j) {
    scales[j] = byte(fit.scales[j] | ((fit.scales[j + 4] >> 4) << 6));
    scales[j + 4] = byte(fit.mins[j] | ((fit.mins[j + 4] >> 4) << 6));
    scales[j + 8] = byte((fit.scales[j + 4] & 15) | ((fit.mins[j + 4] & 15) << 4));
  }
}

// Groups 2k and 2k + 1 share 32 bytes.
void pack_pairs(const std::int8_t* levels, std::uint8_t* qs) {
  for (std::size_t i = 0; i < kSuperBlock; ++i) {
    const std::size_t at = i / 64 * 32 + i % 32;
    qs[at] = byte(qs[at] | ((levels[i] & 15) << (i % 64 / 32 * 4)));
  }
}

void pack(const BlockFit& fit, const std::int8_t* levels, BlockQ4K& b) {
  b.d = fit.d;
  b.dmin = fit.second;
  pack_scales_k4(fit, b.scales);
  pack_pairs(levels, b.qs);
}

void pack(const BlockFit& fit, const std::int8_t* levels, BlockQ5K& b) {
  b.d = fit.d;
  b.dmin = fit.second;
  pack_scales_k4(fit, b.scales);
  pack_pairs(levels, b.qs);
  for (std::size_t i = 0; i < kSuperBlock; ++i)
    b.qh[i % 32] = byte(b.qh[i % 32] | ((levels[i] >> 4) << (i / 32)));
}

void pack(const BlockFit& fit, const std::int8_t* levels, BlockQ6K& b) {
  b.d = fit.d;
  for (std::size_t g = 0; g < 16; ++g) b.scales[g] = static_cast<std::int8_t>(fit.scales[g]);
  for (std::size_t i = 0; i < kSuperBlock; ++i) {
    const std::size_t half = i / 128, run = i % 128 / 32, j = i % 32;
    const int value = levels[i] + 32;
    std::uint8_t& low = b.ql[half * 64 + run % 2 * 32 + j];
    std::uint8_t& high = b.qh[half * 32 + j];
    low = byte(low | ((value & 15) << (run / 2 * 4)));
    high = byte(high | ((value >> 4) << (run * 2)));
  }
}

void pack(const BlockFit& fit, const std::int8_t* levels, BlockIQ4NL& b) {
  b.d = fit.d;
  pack_nibbles(levels, 0, b.qs);
}

void pack(const BlockFit& fit, const std::int8_t* levels, BlockIQ4XS& b) {
  b.d = fit.d;
  for (std::size_t g = 0; g < 8; ++g) {
    const int scale = fit.scales[g] + 32;
    b.scales_l[g / 2] = byte(b.scales_l[g / 2] | ((scale & 15) << (4 * (g % 2))));
    b.scales_h = static_cast<std::uint16_t>(b.scales_h | ((scale >> 4) << (2 * g)));
    pack_nibbles(levels + 32 * g, 0, b.qs + 16 * g);
  }
}

template <class Block>
void pack_as(const BlockFit& fit, const std::int8_t* levels, std::byte* out) {
  Block block{};
  pack(fit, levels, block);
  std::memcpy(out, &block, sizeof block);
}

}  // namespace

void pack_block(BlockFormat format, const BlockFit& fit, const std::int8_t* levels, std::byte* out) {
  switch (format) {
    case BlockFormat::q4_0:
      return pack_as<BlockQ4_0>(fit, levels, out);
    case BlockFormat::q4_1:
      return pack_as<BlockQ4_1>(fit, levels, out);
    case BlockFormat::q5_0:
      return pack_as<BlockQ5_0>(fit, levels, out);
    case BlockFormat::q5_1:
      return pack_as<BlockQ5_1>(fit, levels, out);
    case BlockFormat::q8_0:
      return pack_as<BlockQ8_0>(fit, levels, out);
    case BlockFormat::q2_k:
      return pack_as<BlockQ2K>(fit, levels, out);
    case BlockFormat::q3_k:
      return pack_as<BlockQ3K>(fit, levels, out);
    case BlockFormat::q4_k:
      return pack_as<BlockQ4K>(fit, levels, out);
    case BlockFormat::q5_k:
      return pack_as<BlockQ5K>(fit, levels, out);
    case BlockFormat::q6_k:
      return pack_as<BlockQ6K>(fit, levels, out);
    case BlockFormat::iq4_nl:
      return pack_as<BlockIQ4NL>(fit, levels, out);
    case BlockFormat::iq4_xs:
      return pack_as<BlockIQ4XS>(fit, levels, out);
    default:
      ensure(false, "{} is no block format", block_info(format).name);
  }
}

}  // namespace sinew
