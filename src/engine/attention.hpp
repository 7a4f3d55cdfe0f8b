// The attention core of the engine: softmax(q k^T) v over a cache of pages, in blocks of keys with online
// softmax (FlashAttention, Dao et al. 2022; split over the keys where there are few queries, as
// Flash-Decoding does).
#pragma once

#include <span>

#include "engine/kv_cache.hpp"

namespace sinew::engine {

// The queries of one sequence in one pass: rows first .. first+count-1 of the batch, at positions past ..
// past+count-1; keys are the past and the queries' own.
struct QueryRun {
  const Sequence* sequence = nullptr;
  index_t first = 0, count = 0, past = 0;
};

struct AttentionShape {
  index_t layer = 0;
  index_t heads = 0, kv_heads = 0;  // query head h reads key head h / (heads / kv_heads)
  index_t key = 0, value = 0;       // elements of a head
  double scale = 1;
};

// GQA, and MLA in absorbed form (kv_heads 1, key = the latent, value = its first kv_lora_rank elements).
// q [tokens, heads, key], out [tokens, heads, value].
void attend_cached(const AttentionShape& shape, std::span<const QueryRun> runs, const float* q, float* out);

// The part of attend_cached() that runs with few queries have (kernels/decode_attention.hpp).
bool few_queries(const AttentionShape& shape, const QueryRun& run);
void attend_few(const AttentionShape& shape, std::span<const QueryRun> runs, const float* q, float* out);

// MLA in expanded form, of heads first_head .. first_head+expanded-1 of one run. q and out as above, key =
// nope
// + rope; keys [past + count, expanded, nope + value] hold what was brought out of the latent space,
// `latents` [past + count, latent_ld] the rotated part as the last `rope` of its elements.
struct ExpandedKeys {
  index_t first_head = 0, heads = 0;
  const float* keys = nullptr;
  const float* latents = nullptr;
  index_t latent_ld = 0, rope = 0;
};
void attend_expanded(const AttentionShape& shape, const QueryRun& run, const float* q,
                     const ExpandedKeys& keys, float* out);

// Keys (latents) of tokens [first, first + tokens) as floats: out [tokens, pool.key()].
void read_keys(const Sequence& sequence, index_t layer, index_t head, index_t first, index_t tokens,
               float* out);
// One token's key and value, or latent, into the cache.
void write_row(KvType type, const KvPool::Rows& rows, index_t at, const float* x, index_t n);

}  // namespace sinew::engine
