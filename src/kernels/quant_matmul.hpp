// y = x W^T for packed quantized weights: activations are brought to 8 bits once for all products that read
// them. Few tokens take the exact kernels, many the ones of 8-bit spans (quant_tables.hpp).
#pragma once

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
};
QuantBatch take_batch(Workspace::Frame& frame, index_t tokens, index_t cols);

// The same rows in groups of 16 tokens as product() wants them; missing ones are zeros.
struct TiledBatch {
  index_t groups = 0, cols = 0;
  std::int8_t* q = nullptr;      // [groups][padded_cols / 64][16][64]
  float* scale = nullptr;        // [spans][16 * groups]
  std::int32_t* sums = nullptr;  // the same, of a span's q
  index_t group_bytes() const { return padded_cols(cols) * 16; }
};
TiledBatch take_tiles(Workspace::Frame& frame, index_t groups, index_t cols);
// Group `group` of `out` from rows index[0 .. count) (null: first ..) of `batch`, count <= 16.
void fill_group(const QuantBatch& batch, const std::int32_t* index, index_t first, index_t count,
                const TiledBatch& out, index_t group);

// Tiles [tile, tile + 2) (or the last one) of w with all groups of x.
struct PairProduct {
  const QuantKernels& kernels;
  const PackedMatrix& w;
  index_t tile;

  // Row t of the result, 32 sums, goes to out + t * ld, for t < tokens; `columns` of them (a multiple of 16
  // or what is left of w) and `bias` (null: none) added.
  void operator()(const TiledBatch& x, index_t tokens, float* out, index_t ld, index_t columns,
                  const float* bias) const;
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
