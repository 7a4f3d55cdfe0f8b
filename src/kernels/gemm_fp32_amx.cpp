// Products of fp32 on AMX tiles, which know bf16 alone. A number is the sum of three of bf16, high + middle +
// low, whose 24 bits are all of fp32's; six of the nine products of such sums reach 2^-26 of the whole one,
// and the sums are fp32's. What is left out is less than rounding, so the error is no more than that of fp32
// itself, at twice the speed of its instructions on vectors. (The idea: Henry, Tang and Heinecke 2019,
// "Leveraging the bfloat16 artificial intelligence datatype for higher-precision computations", arXiv
// 1904.06376.)
//
// Numbers below 2^-110 lose bits of their low parts, below 2^-126 they count as zero; above 3.39e38 they are
// infinite. What is not finite stays so, though infinities may become NaN.
#if defined(__x86_64__)
#define SINEW_WIDTH 16
#include <immintrin.h>

#include <algorithm>

#include "kernels/amx_tiles.hpp"
#include "kernels/gemm_simd.hpp"
#include "kernels/gemm_tables.hpp"

namespace sinew {
namespace {

// Panels and left operands go by steps of 32 of k; each holds three planes, high, middle, low, of 2 KiB:
//   panel: [16 pairs of k][32 columns] pairs,  left: [32 rows][16 pairs of k] pairs.
// The pairs stand in the order 0 1 8 9 2 3 10 11 .. in which vpackusdw leaves two vectors of sixteen.
constexpr index_t kDeep = 32, kPlane = 16 * kTile, kStepWords = 3 * kPlane;

std::uint32_t* words_of(float* p) { return reinterpret_cast<std::uint32_t*>(p); }
const std::uint32_t* words_of(const float* p) { return reinterpret_cast<const std::uint32_t*>(p); }

// Each a bf16 in the upper half of its word; the lower half of `part[2]` is zero as well, for no more bits
// are left.
struct Parts {
  Vu part[3];
};

[[gnu::always_inline]] inline Parts split(Vf x) {
  const Vu high = ((Vu)x + 0x8000U) & 0xffff0000U;
  const Vf rest = x - (Vf)high;
  const Vu middle = ((Vu)rest + 0x8000U) & 0xffff0000U;
  return {{high, middle, (Vu)(rest - (Vf)middle)}};
}

// The upper halves of two vectors as pairs of neighbours, in the order above.
[[gnu::always_inline]] inline Vu neighbours(Vu a, Vu b) {
  return (Vu)_mm512_packus_epi32((__m512i)(a >> 16), (__m512i)(b >> 16));
}

[[gnu::always_inline]] inline void put(std::uint32_t* to, Vu v) { __builtin_memcpy(to, &v, sizeof v); }

// Up to 32 x 32 numbers with zeros for what is not there: the steps below know whole ones only.
template <class Row>
void fill(const Row& row, index_t rows, index_t columns, float (&out)[kTile][kDeep]) {
  std::memset(out, 0, sizeof out);
  for (index_t r = 0; r < rows; ++r)
    std::memcpy(out[r], row(r), static_cast<std::size_t>(columns) * sizeof(float));
}

void left_step(const float* a, index_t lda, index_t rows, std::uint32_t* out) {
  for (index_t r = 0; r < rows; ++r) {
    const Parts x = split(load(a + r * lda)), y = split(load(a + r * lda + W));
    for (int p = 0; p < 3; ++p) put(out + p * kPlane + r * 16, neighbours(x.part[p], y.part[p]));
  }
}

void left_split(const float* a, index_t lda, index_t rows, index_t k, float* out) {
  rows = round_up(rows, 16);
  std::uint32_t* to = words_of(out);
  for (index_t i = 0; i < k; i += kDeep, to += kStepWords) {
    if (k - i >= kDeep) {
      left_step(a + i, lda, rows, to);
      continue;
    }
    float block[kTile][kDeep];
    fill([&](index_t r) { return a + r * lda + i; }, rows, k - i, block);
    left_step(block[0], kDeep, rows, to);
  }
}

// 32 columns of B, each a row of `source`.
void transposed_step(const float* source, index_t ld, std::uint32_t* out) {
  for (index_t j = 0; j < kTile; j += W) {
    Vu v[3][W];
    for (int c = 0; c < W; ++c) {
      const Parts x = split(load(source + (j + c) * ld)), y = split(load(source + (j + c) * ld + W));
      for (int p = 0; p < 3; ++p) v[p][c] = neighbours(x.part[p], y.part[p]);
    }
    for (int p = 0; p < 3; ++p) {
      transpose(v[p]);
      for (int w = 0; w < W; ++w) put(out + p * kPlane + w * kTile + j, v[p][w]);
    }
  }
}

void pack_b_transposed_split(const float* source, index_t ld, index_t n, index_t k, float* panel) {
  std::uint32_t* to = words_of(panel);
  for (index_t i = 0; i < k; i += kDeep, to += kStepWords) {
    if (n == kTile && k - i >= kDeep) {
      transposed_step(source + i, ld, to);
      continue;
    }
    float block[kTile][kDeep];
    fill([&](index_t r) { return source + r * ld + i; }, n, std::min(kDeep, k - i), block);
    transposed_step(block[0], kDeep, to);
  }
}

// 32 rows of B: row(i) points to the i-th.
template <class Row>
void plain_step(const Row& row, std::uint32_t* out) {
  for (index_t pair = 0; pair < 16; ++pair) {
    const index_t lane = pair % 8 / 2, word = 4 * lane + (pair < 8 ? 0 : 2) + pair % 2;
    const float *const first = row(2 * pair), *const second = row(2 * pair + 1);
    for (index_t j = 0; j < kTile; j += W) {
      const Parts x = split(load(first + j)), y = split(load(second + j));
      for (int p = 0; p < 3; ++p)
        put(out + p * kPlane + word * kTile + j, (x.part[p] >> 16) | (y.part[p] & 0xffff0000U));
    }
  }
}

void pack_b_split(const float* source, index_t ld, const std::int32_t* rows, index_t k, index_t n,
                  float* panel) {
  std::uint32_t* to = words_of(panel);
  for (index_t i = 0; i < k; i += kDeep, to += kStepWords) {
    const auto row = [&](index_t r) { return row_of(source, ld, rows, i + r); };
    if (n == kTile && k - i >= kDeep) {
      plain_step(row, to);
      continue;
    }
    float block[kTile][kDeep];
    fill(row, std::min(kDeep, k - i), n, block);
    plain_step([&](index_t r) { return block[r]; }, to);
  }
}

// ---- the block: Rows tiles of 16 rows by two of 16 columns ----

template <int Rows>
[[gnu::always_inline]] inline void products() {
  _tile_dpbf16ps(0, 4, 6);
  _tile_dpbf16ps(1, 4, 7);
  if constexpr (Rows == 2) {
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
}
template <int Rows>
[[gnu::always_inline]] inline void load_left(const std::uint32_t* plane) {
  _tile_loadd(4, plane, 64);
  if constexpr (Rows == 2) _tile_loadd(5, plane + 256, 64);
}
[[gnu::always_inline]] inline void load_right(const std::uint32_t* plane) {
  _tile_stream_loadd(6, plane, 128);  // must not drive the left operand out of the first-level cache
  _tile_stream_loadd(7, plane + 16, 128);
}
// A sixth of the next step: tile loads wait for the second-level cache, and one after another.
[[gnu::always_inline]] inline void ask_for(const std::uint32_t* next) {
  for (int line = 0; line < 16; ++line) __builtin_prefetch(next + line * 16, 0, 3);
}

template <int Rows, class Step>
[[gnu::always_inline]] inline void block_split(const std::uint32_t* a, const std::uint32_t* b, index_t k,
                                               float* c, index_t ldc, bool accumulate, const Step& step) {
  const index_t stride = ldc * static_cast<index_t>(sizeof(float));
  float* const lower = c + 16 * ldc;
  if (accumulate) {
    _tile_loadd(0, c, stride);
    _tile_loadd(1, c + 16, stride);
    if constexpr (Rows == 2) {
      _tile_loadd(2, lower, stride);
      _tile_loadd(3, lower + 16, stride);
    }
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  for (index_t i = 0; i < k; i += kDeep, a += kStepWords, b += kStepWords) {
    const std::uint32_t* const next = b + kStepWords;
    load_left<Rows>(a);
    load_right(b + 2 * kPlane);
    products<Rows>();  // high * low
    ask_for(next);
    step();
    load_right(b + kPlane);
    products<Rows>();  // high * middle
    ask_for(next + 256);
    step();
    load_left<Rows>(a + kPlane);
    products<Rows>();  // middle * middle
    ask_for(next + 512);
    step();
    load_right(b);
    products<Rows>();  // middle * high
    ask_for(next + 768);
    step();
    load_left<Rows>(a + 2 * kPlane);
    products<Rows>();  // low * high
    ask_for(next + 1024);
    step();
    load_left<Rows>(a);
    products<Rows>();  // high * high
    ask_for(next + 1280);
    step();
  }
  _tile_stored(0, c, stride);
  _tile_stored(1, c + 16, stride);
  if constexpr (Rows == 2) {
    _tile_stored(2, lower, stride);
    _tile_stored(3, lower + 16, stride);
  }
}

template <class Step>
[[gnu::always_inline]] inline void block_rows(const float* a, index_t rows, const float* panel, index_t k,
                                              float* c, index_t ldc, bool accumulate, const Step& step) {
  if (rows > 16)
    block_split<2>(words_of(a), words_of(panel), k, c, ldc, accumulate, step);
  else
    block_split<1>(words_of(a), words_of(panel), k, c, ldc, accumulate, step);
}

void block_of_split(const float* a, index_t /*lda*/, index_t rows, const float* panel, index_t k, float* c,
                    index_t ldc, bool accumulate) {
  block_rows(a, rows, panel, k, c, ldc, accumulate, [] {});
}
void block_beside(const float* a, index_t /*lda*/, index_t rows, const float* panel, index_t k, float* c,
                  index_t ldc, bool accumulate, const Beside& beside) {
  block_rows(a, rows, panel, k, c, ldc, accumulate, [&] { beside.step(beside.context); });
}

}  // namespace

const GemmKernels<float> gemm_fp32_amx = {.begin = configure_tiles,
                                          .end = release_tiles,
                                          .pack_b_transposed = pack_b_transposed_split,
                                          .pack_b = pack_b_split,
                                          .pack_a_transposed = pack_a_transposed<float>,
                                          .block = block_of_split,
                                          .step = kDeep,
                                          .row = kStepWords / kDeep,
                                          .depth = 128,
                                          .block_beside = block_beside,
                                          .beside_steps = 6,
                                          .make_left = left_split};

}  // namespace sinew
#endif
