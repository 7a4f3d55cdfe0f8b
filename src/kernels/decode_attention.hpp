// Attention of a few queries over a cache, as decoding has it: softmax(q k^T) v with online softmax
// (FlashAttention, Dao et al. 2022), a piece of the keys at a time (Flash-Decoding), each row of the cache
// read once, in the format it is kept in, for all queries that share it: the heads of a group, or in MLA's
// absorbed form all heads, and the tokens of a draft.
#pragma once

#include "kernels/block_formats.hpp"
#include "kernels/gemm.hpp"

namespace sinew {

inline constexpr index_t kCachePage = 32;    // rows of a page
inline constexpr index_t kDecodeRows = 128;  // of queries, at most

struct CacheRows {
  BlockFormat format = BlockFormat::bf16;      // f32, f16, bf16, q8_0 or q4_0
  index_t key = 0, value = 0;                  // elements
  std::size_t key_bytes = 0, value_bytes = 0;  // from one row to the next
  bool latent = false;                         // a value is the first elements of the key's row
};

struct CachePage {
  const std::byte *keys, *values;  // kCachePage rows each; those nobody sees hold numbers
};

// Results lie in rows of whole vectors and tiles.
constexpr index_t decode_rows(index_t rows) { return round_up(rows, 16); }
constexpr index_t decode_columns(index_t value) { return round_up(value, 32); }

struct DecodePiece {
  index_t rows = 0;                  // of queries
  const void* q = nullptr;           // what prepare() made of them
  const index_t* visible = nullptr;  // [rows]: the first keys of the piece, up to this many, are seen
  const CachePage* pages = nullptr;
  index_t keys = 0;  // of the piece
  // Results: `top` [decode_rows(rows)] the largest score log2(e) scale q k, `sum` that of 2^(score - top),
  // `out` [decode_rows(rows), decode_columns(value)] that of 2^(score - top) v, in an order of columns of the
  // set's own. A row that sees no key has sum 0.
  float *top = nullptr, *sum = nullptr, *out = nullptr;
};

struct DecodeKernels {
  // Queries q [rows]: [key] as attend() wants them, for all pieces: query_bytes() at `out`, aligned to 64.
  std::size_t (*query_bytes)(const CacheRows& cache, index_t rows);
  void (*prepare)(const CacheRows& cache, float scale, index_t rows, const float* const* q, void* out);
  // `coming`: what the same thread does then, or null.
  void (*attend)(const CacheRows& cache, const DecodePiece& piece, const DecodePiece* coming);
  // One row of several pieces, `top` and `sum` `stride` apart and `out` `stride` rows: y [value] = the whole
  // row's attention.
  void (*merge)(index_t pieces, const float* top, const float* sum, const float* out, index_t stride,
                index_t value, float* y);
};
// Caches of 16 bits and less are computed with in bf16 from Isa::bf16 on, else in fp32.
const DecodeKernels& decode_kernels(Isa isa, BlockFormat format);

}  // namespace sinew
