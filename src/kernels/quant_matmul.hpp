// y = x W^T for packed quantized weights: activations are brought to 8 bits once for all products that read
// them. Few tokens take the exact kernels, many the ones of 8-bit spans (quant_tables.hpp).
#pragma once

#include <algorithm>
#include <span>

#include "kernels/quant_tables.hpp"
#include "kernels/workspace.hpp"

namespace sinew {

// Up to this many tokens weights are read code by code; above, they are unpacked.
inline constexpr index_t kFewTokens = 8;

// Rows of activations in 8 bits.
struct QuantBatch {
  index_t tokens = 0, cols = 0;
  std::int8_t* q = nullptr;
  float* scale = nullptr;
  std::int32_t* sums = nullptr;
  QuantRow row(index_t t) const {
    const index_t wide = padded_cols(cols);
    return {q + t * wide, scale + t * spans(cols), sums + t * (wide / 16)};
  }
  const QuantRow* rows(Workspace::Frame& frame) const;  // all of them
};
QuantBatch take_batch(Workspace::Frame& frame, index_t tokens, index_t cols);

// The same rows in groups of 16 tokens as product() wants them; missing ones are zeros.
struct TiledBatch {
  index_t groups = 0, cols = 0;
  std::int8_t* q = nullptr;      // [spans][groups][steps of the span][16][64]
  float* scale = nullptr;        // [spans][16 * groups]
  std::int32_t* sums = nullptr;  // the same, of a span's q
  index_t steps(index_t span) const { return std::min(kSpan, padded_cols(cols) - span * kSpan) / 64; }
  std::int8_t* at(index_t span, index_t group) const {
    return q + (span * groups * (kSpan / 64) + group * steps(span)) * 1024;
  }
};
TiledBatch take_tiles(Workspace::Frame& frame, index_t groups, index_t cols);
// Group `group` of `out` from rows index[0 .. count) (null: first ..) of `batch`, count <= 16.
void fill_group(const QuantBatch& batch, const std::int32_t* index, index_t first, index_t count,
                const TiledBatch& out, index_t group);

inline constexpr index_t kBlockRows = 128;  // rows of weights that a task of many tokens works on

// Rows [row, row + 128) (or what is left; row a multiple of 16) of w with all groups of x.
struct BlockProduct {
  const QuantKernels& kernels;
  const PackedMatrix& w;
  index_t row;

  // Row t of the result goes to out + t * ld, for t < tokens, `bias` (of the first; null: none) added.
  void operator()(const TiledBatch& x, index_t tokens, float* out, index_t ld, const float* bias) const;
  index_t columns() const { return std::min(kBlockRows, w.rows - row); }
};

struct QuantProduct {
  const PackedMatrix* w = nullptr;
  float* y = nullptr;  // [tokens, w->rows]
  index_t ldy = 0;
  const float* bias = nullptr;  // [w->rows] or null
};

// All products of x [tokens, cols], on the team. `isa` must have quant_kernels().
void quant_matmul(Isa isa, const float* x, index_t ld, index_t tokens, index_t cols,
                  std::span<const QuantProduct> products);

}  // namespace sinew
