// Integer products of packed weights (packed.hpp) with activations in 8 bits, for every instruction set that
// has them, behind one table. What the drivers in quant_matmul.hpp and quant_experts.hpp are made of.
//
// Activations: x ~ scale * q, q in -127..127, one scale for each span of 256 columns. For few tokens the
// weights' own scales are applied exactly (`dot_tiles`). For many, each row's span of weights is brought to
// one scale of its own and 8 bits (`unpack_span`), so that whole spans are summed in integers; its rounding,
// at most 1/254 of the largest weight of the span, is below that of the activations.
#pragma once

#include "kernels/packed.hpp"

namespace sinew {

inline constexpr index_t kSpan = 256;   // columns that share a scale
inline constexpr index_t kFewRows = 4;  // tokens of dot_tiles

constexpr index_t spans(index_t cols) { return (cols + kSpan - 1) / kSpan; }
constexpr index_t padded_cols(index_t cols) { return round_up(cols, 64); }

// One token's activations in 8 bits.
struct QuantRow {
  std::int8_t* q = nullptr;      // [padded_cols(cols)], zeros at the end
  float* scale = nullptr;        // [spans(cols)]
  std::int32_t* sums = nullptr;  // [padded_cols(cols) / 16]: of 16 q each
  float* pairs = nullptr;        // [padded_cols(cols) / 32]: of 32 q each
};

// Memory to be fetched into the second-level cache during a product, a little at a time: many lines asked for
// at once would make its own operands wait.
struct Fetch {
  const std::byte* at = nullptr;
  index_t lines = 0;  // of 64 bytes
  const std::byte* then = nullptr;
  index_t then_lines = 0;
};

// A span of two tiles to be brought to 8 bits, and memory to be fetched meanwhile.
struct SpanToUnpack {
  BlockFormat format;
  const std::byte *tiles, *second;  // null: no second tile
  index_t cols, span;
  std::int8_t* codes;  // [2][16 * kSpan]
  float* scale;        // [32]
  Fetch ahead;
};

struct QuantKernels {
  void (*quantize_row)(const float* x, index_t cols, const QuantRow& out);
  // A span of one token for products of many: x in pieces of 32 numbers, `piece` apart, to steps of 64
  // columns 1024 bytes apart, their scale and the sum of all.
  void (*quantize_pieces)(const float* x, index_t piece, index_t count, std::int8_t* out, float* scale,
                          std::int32_t* sum);
  // out [tokens, 16 * tiles] (row stride ld_out) = products of up to 4 tokens with tiles that lie one after
  // another. `next`: what this thread will read then, fetched ahead (null: what follows in memory).
  void (*dot_tiles)(BlockFormat format, const std::byte* tiles, index_t tile_count, index_t cols,
                    const QuantRow* rows, index_t tokens, const std::byte* next, float* out, index_t ld_out);
  // Span `span` of a tile as 8-bit numbers: steps of 64 columns of [16 = column / 4][16 rows][4] bytes,
  // columns beyond the end zero, and scale [16]. As the products of the table want them (signed, or plus
  // 128).
  void (*unpack_span)(BlockFormat format, const std::byte* tile, index_t cols, index_t span, std::int8_t* out,
                      float* scale);
  // acc [tokens, 32] (first ? = : +=) the products of tokens with two unpacked spans of 16 rows (at b and
  // b + 16 * kSpan). a: for each group of 16 tokens steps of 64 columns of [16 tokens][64], groups `stride`
  // bytes apart. scale, sum [tokens]: of each token in this span. Rows of acc to the end of the last group
  // may be written.
  void (*product)(const std::int8_t* a, index_t stride, index_t tokens, index_t steps, const std::int8_t* b,
                  const float* b_scale, const float* scale, const std::int32_t* sum, float* acc, bool first,
                  Fetch ahead);
  // product() of up to 3 groups while `coming` is unpacked: the tiles multiply as vectors unpack. Null
  // without tiles.
  void (*product_while)(const std::int8_t* a, index_t stride, index_t groups, index_t steps,
                        const std::int8_t* b, const float* b_scale, const float* scale, float* acc,
                        bool first, const SpanToUnpack& coming);
  // sums [groups, 32 * 16] of bare products over any number of steps, in an order of the set's own; b and
  // b + 1024 * steps; groups even. What the peak is measured with.
  void (*multiply)(const std::int8_t* a, index_t stride, index_t groups, index_t steps, const std::int8_t* b,
                   std::int32_t* sums);
  // silu(gate) * up into gate.
  void (*swiglu)(float* gate, const float* up, index_t n);
  // y += factor * x; x in pieces of 32 numbers, `piece` apart.
  void (*add_scaled)(const float* x, index_t piece, float factor, index_t n, float* y);
  // y [row[i], 32] += factor[i] * x [i, 32] for all i < n; rows `ld` apart. Null: rows 0, 1, ..; factor 1.
  void (*add_rows)(const float* x, const std::int32_t* row, const float* factor, index_t n, float* y,
                   index_t ld);
  void (*begin)();  // around product() on a thread: tile registers
  void (*end)();
};

// Null where the set has no integer products: use the blocks themselves.
const QuantKernels* quant_kernels(Isa isa);

}  // namespace sinew
