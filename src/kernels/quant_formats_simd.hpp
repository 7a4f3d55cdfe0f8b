// Packed weights (packed.hpp) on vectors of SINEW_WIDTH floats (4 of NEON, 8 or 16): bytes and their
// products, and what each format is. See simd.hpp for how to include it. A line of 64 bytes is one vector of
// 16 rows or kHalves parts of W.
#pragma once

#include <type_traits>

#include "kernels/quant_tables.hpp"
#include "kernels/simd.hpp"

namespace sinew {
namespace {

constexpr int kHalves = 16 / W;

[[gnu::always_inline]] inline Vi splat_int(std::int32_t x) { return x - Vi{}; }
typedef std::uint16_t Vw __attribute__((vector_size(W * 4)));  // a line's bytes, by twos
[[gnu::always_inline]] inline Vw splat16(int x) { return static_cast<std::uint16_t>(x) - Vw{}; }

[[gnu::always_inline]] inline Vf to_floats(Vi v) { return __builtin_convertvector(v, Vf); }

#if SINEW_WIDTH == 16
constexpr __mmask16 kAll = 0xffff;  // the forms without a mask draw a false warning from g++ 12
// W bytes as numbers, and back (g++ 12 makes scalar code of __builtin_convertvector here).
[[gnu::always_inline]] inline __m128i load_bytes(const std::byte* p) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
}
[[gnu::always_inline]] inline Vi bytes(const std::byte* p) {
  return (Vi)_mm512_maskz_cvtepu8_epi32(kAll, load_bytes(p));
}
[[gnu::always_inline]] inline Vi signed_bytes(const std::byte* p) {
  return (Vi)_mm512_maskz_cvtepi8_epi32(kAll, load_bytes(p));
}
[[gnu::always_inline]] inline void store_bytes(std::int8_t* p, Vi v) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_maskz_cvtepi32_epi8(kAll, (__m512i)v));
}
[[gnu::always_inline]] inline Vw look_up(Vw index, const std::uint8_t* table) {
  const __m128i levels = _mm_loadu_si128(reinterpret_cast<const __m128i*>(table));
  return (Vw)_mm512_shuffle_epi8(_mm512_maskz_broadcast_i32x4(kAll, levels), (__m512i)index);
}
// Two lines of 16 bytes, each twice.
[[gnu::always_inline]] inline Vu twice_each_line(const std::byte* p) {
  const __m512i lines = _mm512_castsi256_si512(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  return (Vu)_mm512_maskz_shuffle_i64x2(0xff, lines, lines, 0x50);
}
// acc + sums of four products of unsigned weights and the four bytes of x.
[[gnu::always_inline]] inline Vi dot(Vi acc, Vw weights, std::int32_t x) {
  return (Vi)_mm512_dpbusd_epi32((__m512i)acc, (__m512i)weights, _mm512_set1_epi32(x));
}
constexpr bool kWideCodes = true;  // dot() takes codes up to 255
#elif SINEW_WIDTH == 8
[[gnu::always_inline]] inline __m128i load_bytes(const std::byte* p) {
  return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
}
[[gnu::always_inline]] inline Vi bytes(const std::byte* p) { return (Vi)_mm256_cvtepu8_epi32(load_bytes(p)); }
[[gnu::always_inline]] inline Vi signed_bytes(const std::byte* p) {
  return (Vi)_mm256_cvtepi8_epi32(load_bytes(p));
}
[[gnu::always_inline]] inline void store_bytes(std::int8_t* p, Vi v) {  // -128..127
  const __m128i words =
      _mm_packs_epi32(_mm256_castsi256_si128((__m256i)v), _mm256_extracti128_si256((__m256i)v, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packs_epi16(words, words));
}
[[gnu::always_inline]] inline Vw look_up(Vw index, const std::uint8_t* table) {
  const __m128i levels = _mm_loadu_si128(reinterpret_cast<const __m128i*>(table));
  return (Vw)_mm256_shuffle_epi8(_mm256_broadcastsi128_si256(levels), (__m256i)index);
}
// A line of 16 bytes, twice.
[[gnu::always_inline]] inline Vu twice_each_line(const std::byte* p) {
  return (Vu)_mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
[[gnu::always_inline]] inline Vi pairs_to_words(__m256i pairs) {
  return (Vi)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}
// Sums of two products each, in 16 bits.
[[gnu::always_inline]] inline __m256i products_in_pairs(Vw weights, std::int32_t x) {
  return _mm256_maddubs_epi16((__m256i)weights, _mm256_set1_epi32(x));
}
[[gnu::always_inline]] inline Vi dot(Vi acc, Vw weights, std::int32_t x) {
  return acc + pairs_to_words(products_in_pairs(weights, x));
}
// The same of signed weights -127..127.
[[gnu::always_inline]] inline Vi dot_signed(Vi acc, Vw weights, std::int32_t x) {
  const __m256i w = (__m256i)weights;
  return acc +
         pairs_to_words(_mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(_mm256_set1_epi32(x), w)));
}
constexpr bool kWideCodes = false;  // codes beyond 127 would saturate: they are made signed
#else
[[gnu::always_inline]] inline Vi bytes(const std::byte* p) {
  return (Vi)vmovl_u16(vget_low_u16(vmovl_u8(vreinterpret_u8_u32(vdup_n_u32(load_as<std::uint32_t>(p))))));
}
[[gnu::always_inline]] inline Vi signed_bytes(const std::byte* p) {
  return (Vi)vmovl_s16(vget_low_s16(vmovl_s8(vreinterpret_s8_s32(vdup_n_s32(load_as<std::int32_t>(p))))));
}
[[gnu::always_inline]] inline void store_bytes(std::int8_t* p, Vi v) {  // -128..127
  const int16x4_t words = vqmovn_s32((int32x4_t)v);
  const std::int32_t four = vget_lane_s32(vreinterpret_s32_s8(vqmovn_s16(vcombine_s16(words, words))), 0);
  __builtin_memcpy(p, &four, sizeof four);
}
[[gnu::always_inline]] inline Vw look_up(Vw index, const std::uint8_t* table) {
  return (Vw)vqtbl1q_u8(vld1q_u8(table), (uint8x16_t)index);
}
// A line of 16 bytes: all that a vector holds.
[[gnu::always_inline]] inline Vu twice_each_line(const std::byte* p) { return load_as<Vu>(p); }
// acc + sums of four products of signed weights and the four bytes of x.
[[gnu::always_inline]] inline Vi dot(Vi acc, Vw weights, std::int32_t x) {
  const auto w = (int8x16_t)weights, q = vreinterpretq_s8_s32(vdupq_n_s32(x));
#if defined(__ARM_FEATURE_DOTPROD)
  return (Vi)vdotq_s32((int32x4_t)acc, w, q);
#else
  const int32x4_t low = vpaddlq_s16(vmull_s8(vget_low_s8(w), vget_low_s8(q)));
  return acc + (Vi)vpaddq_s32(low, vpaddlq_s16(vmull_high_s8(w, q)));
#endif
}
[[gnu::always_inline]] inline Vi dot_signed(Vi acc, Vw weights, std::int32_t x) {
  return dot(acc, weights, x);
}
constexpr bool kWideCodes = false;
#endif

// ---- what each format is ----

template <BlockFormat F>
struct Format {
  static constexpr PackedLayout layout = packed_layout(F);
  static constexpr bool grouped = layout.elements == 256;  // groups with small scales in a block
  static constexpr index_t group =
      F == BlockFormat::q2_k || F == BlockFormat::q3_k || F == BlockFormat::q6_k ? 16 : 32;
  static constexpr bool six_bits = F == BlockFormat::q4_k || F == BlockFormat::q5_k;  // scales and minima
  static constexpr bool levels = F == BlockFormat::iq4_nl || F == BlockFormat::iq4_xs;
  static constexpr bool minimum = layout.head == 64 && F != BlockFormat::iq4_xs;
  static constexpr bool made_signed = !kWideCodes && layout.bias == 128;
  static constexpr int bias = made_signed ? 0 : layout.bias;
  static constexpr bool nibbles = layout.low_bits == 4 && layout.high_bits == 0 && !levels;
  static constexpr int top = levels ? 241 : (1 << (layout.low_bits + layout.high_bits)) - 1;  // highest code
};

constexpr std::uint8_t kLevels[16] = {1,   24,  45,  63,  79,  93,  106, 118,
                                      129, 141, 153, 166, 181, 197, 217, 241};  // kIQ4Levels + 128

// The codes of 32 columns: w[v] holds columns 4 v .. 4 v + 3 of half `h` of the rows.
template <BlockFormat F>
[[gnu::always_inline]] inline void load_codes(const std::byte* chunk, int h, Vw (&w)[8]) {
  constexpr PackedLayout layout = Format<F>::layout;
  const auto line = [&](int i) { return load_as<Vw>(chunk + 64 * i + h * (64 / kHalves)); };
  if constexpr (layout.low_bits == 8) {
#pragma GCC unroll 8
    for (int v = 0; v < 8; ++v) w[v] = line(v);
  } else if constexpr (layout.low_bits == 4) {
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      const Vw l = line(j);
      w[2 * j] = l & 0x0f0f;
      w[2 * j + 1] = (l >> 4) & 0x0f0f;
    }
  } else {
#pragma GCC unroll 2
    for (int j = 0; j < 2; ++j) {
      const Vw l = line(j);
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) w[4 * j + i] = (l >> splat16(2 * i)) & 0x0303;
    }
  }
  if constexpr (layout.high_bits == 1) {
    constexpr int bit = layout.low_bits;
    constexpr int mask = 0x0101 << bit;
    const Vw l = line(layout.low_bits);
#pragma GCC unroll 8
    for (int v = 0; v < 8; ++v)
      w[v] |= (v <= bit ? l << splat16(bit - v) : l >> splat16(v - bit)) & splat16(mask);
  } else if constexpr (layout.high_bits == 2) {
#pragma GCC unroll 2
    for (int j = 0; j < 2; ++j) {
      const Vw l = line(layout.low_bits + j);
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) w[4 * j + i] |= (i <= 2 ? l << splat16(4 - 2 * i) : l >> 2) & 0x3030;
    }
  }
  if constexpr (Format<F>::levels)
#pragma GCC unroll 8
    for (int v = 0; v < 8; ++v) w[v] = look_up(w[v], kLevels);
  if constexpr (Format<F>::made_signed)
#pragma GCC unroll 8
    for (int v = 0; v < 8; ++v) w[v] ^= splat16(0x8080);
}

struct Scales {
  Vf scale, minimum;
};

// The 6-bit scales and minima of all groups of a block as bytes: a few instructions on whole lines instead of
// a dozen for each group.
struct GroupBytes {
  alignas(64) std::byte scale[8][kPackedRows], minimum[8][kPackedRows];
};

[[gnu::always_inline]] inline void group_bytes(const std::byte* body, GroupBytes& out) {
  constexpr index_t lines = W / 4;  // of a vector; a line of high bits serves two groups
#pragma GCC unroll 8
  for (index_t g = 0; g < 8; g += lines) {
    Vu shift{};
    for (int i = 0; i < W; ++i) shift[i] = static_cast<std::uint32_t>((g + i / 4) % 2 * 4);
    const Vu low = load_as<Vu>(body + g * kPackedRows);
    const Vu high = twice_each_line(body + (8 + g / 2) * kPackedRows) >> shift;
    const Vu scale = (low & 0x0f0f0f0fU) | ((high & 0x03030303U) << 4);
    const Vu minimum = ((low >> 4) & 0x0f0f0f0fU) | ((high & 0x0c0c0c0cU) << 2);
    __builtin_memcpy(out.scale[g], &scale, sizeof scale);
    __builtin_memcpy(out.minimum[g], &minimum, sizeof minimum);
  }
}

// The small scales of group g of a block, of W rows from the h-th half on.
template <BlockFormat F>
[[gnu::always_inline]] inline Scales group_scales(const std::byte* head, const std::byte* body,
                                                  [[maybe_unused]] const GroupBytes& six, index_t g, int h) {
  const auto line = [&](index_t i) { return body + i * kPackedRows + h * W; };
  if constexpr (Format<F>::six_bits) {
    return {to_floats(bytes(six.scale[g] + h * W)), to_floats(bytes(six.minimum[g] + h * W))};
  } else if constexpr (F == BlockFormat::q6_k) {
    return {to_floats(signed_bytes(line(g))), Vf{}};
  } else if constexpr (F == BlockFormat::q2_k) {
    const Vi both = bytes(line(g));
    return {to_floats(both & 15), to_floats(both >> 4)};
  } else if constexpr (F == BlockFormat::q3_k) {
    const Vi low = (bytes(line(g / 2)) >> static_cast<int>(g % 2 * 4)) & 15;
    const Vi high = (bytes(line(8 + g / 4)) >> static_cast<int>(g % 4 * 2)) & 3;
    return {to_floats((low | (high << 4)) - 32), Vf{}};
  } else if constexpr (F == BlockFormat::iq4_xs) {
    const Vi low = (bytes(line(g / 2)) >> static_cast<int>(g % 2 * 4)) & 15;
    const Vi high = (bytes(head + 32 + g / 4 * kPackedRows + h * W) >> static_cast<int>(g % 4 * 2)) & 3;
    return {to_floats((low | (high << 4)) - 32), Vf{}};
  } else {
    return {Vf{}, Vf{}};
  }
}

// The block's fp16 scale, and its minimum (subtracted in K formats, added in Q4_1 and Q5_1: here always to be
// subtracted).
template <BlockFormat F>
[[gnu::always_inline]] inline Scales block_scales(const std::byte* head, int h) {
  Scales s{halves(head + h * W * 2), Vf{}};
  if constexpr (Format<F>::minimum) {
    s.minimum = halves(head + 32 + h * W * 2);
    if constexpr (!Format<F>::grouped) s.minimum = -s.minimum;
  }
  return s;
}

}  // namespace
}  // namespace sinew
