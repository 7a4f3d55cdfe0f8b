// Activations in 8 bits as the products of packed weights read them.
#pragma once

#include <algorithm>

#include "kernels/quant_tables.hpp"
#include "kernels/unit_list.hpp"
#include "kernels/workspace.hpp"

namespace sinew {

// Rows of activations in 8 bits.
struct QuantBatch {
  index_t tokens = 0, cols = 0;
  std::int8_t* q = nullptr;
  float* scale = nullptr;
  std::int32_t* sums = nullptr;
  float* pairs = nullptr;
  QuantRow row(index_t t) const {
    const index_t wide = padded_cols(cols);
    return {q + t * wide, scale + t * spans(cols), sums + t * (wide / 16), pairs + t * (wide / 32)};
  }
  const QuantRow* rows(Workspace::Frame& frame) const;  // all of them
};
QuantBatch take_batch(Workspace::Frame& frame, index_t tokens, index_t cols);

// The same rows in groups of 16 tokens as product() wants them; missing ones are zeros.
struct TiledBatch {
  index_t tokens = 0, cols = 0;
  std::int8_t* q = nullptr;      // [spans][groups][steps of the span][16][64]
  float* scale = nullptr;        // [spans][16 * groups]
  std::int32_t* sums = nullptr;  // the same, of a span's q
  index_t groups() const { return units(tokens, 16); }
  index_t steps(index_t span) const { return std::min(kSpan, padded_cols(cols) - span * kSpan) / 64; }
  std::int8_t* at(index_t span, index_t group) const {
    return q + (span * groups() * (kSpan / 64) + group * steps(span)) * 1024;
  }
  // Where row `place` of a span begins, 64 columns of 1024 bytes.
  std::int8_t* row(index_t span, index_t place) const { return at(span, place / 16) + place % 16 * 64; }
  // Row `place` in span `span` from one token's span.
  void put(index_t span, index_t place, const std::int8_t* from, float factor, std::int32_t sum) const;
  void clear(index_t span, index_t place) const;
};
TiledBatch take_tiles(Workspace::Frame& frame, index_t tokens, index_t cols);
// Group `group` of `out` from rows index[0 .. count) (null: first ..) of `batch`, count <= 16.
void fill_group(const QuantBatch& batch, const std::int32_t* index, index_t first, index_t count,
                const TiledBatch& out, index_t group);

}  // namespace sinew
