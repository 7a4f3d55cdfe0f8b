// Runs of few queries: decoding, drafts, the ends of prompts. The keys of each head are split into pieces
// that threads take in any order; the pieces of a row are added up in their own order, so results do not
// depend on the number of threads.
#include <algorithm>
#include <span>
#include <utility>

#include "base/index.hpp"
#include "base/team.hpp"
#include "engine/attention.hpp"
#include "kernels/chained_tasks.hpp"
#include "kernels/decode_attention.hpp"
#include "kernels/unit_list.hpp"
#include "kernels/workspace.hpp"

namespace sinew::engine {
namespace {

static_assert(kPage == kCachePage);

// Keys of a piece. A latent cache has one head, whose pieces must keep all threads busy to the end; every
// piece costs some packing and adding up. It depends on the text alone.
index_t piece_keys(bool latent, index_t all) {
  return latent ? std::clamp<index_t>(round_up((all + 7) / 8, kPage), 128, 1024) : 512;
}

// The queries of one run and key head, row r: query head `head` * group + r % group of token r / group.
struct HeadRows {
  const QueryRun* run;
  index_t head, group, rows, piece, pieces;
  std::byte* q;            // what attention makes of the queries
  float *top, *sum, *out;  // [pieces, wide()], [pieces, wide()], [pieces, wide(), decode_columns(value)]
  index_t wide() const { return decode_rows(rows); }
};

index_t row_at(const AttentionShape& shape, const HeadRows& h, index_t r) {
  return (h.run->first + r / h.group) * shape.heads + h.head * h.group + r % h.group;
}

HeadRows head_rows(const AttentionShape& shape, const QueryRun& run, index_t head, const CacheRows& cache,
                   const DecodeKernels& kernels, Workspace::Frame& frame) {
  const index_t group = shape.heads / shape.kv_heads, rows = run.count * group;
  const index_t all = run.past + run.count, piece = piece_keys(cache.latent, all);
  const index_t pieces = (all + piece - 1) / piece, results = pieces * decode_rows(rows);
  return {&run,
          head,
          group,
          rows,
          piece,
          pieces,
          frame.take<std::byte>(kernels.query_bytes(cache, rows)),
          frame.take<float>(size(results)),
          frame.take<float>(size(results)),
          frame.take<float>(size(results * decode_columns(shape.value)))};
}

// One head's queries.
void prepare(const AttentionShape& shape, const HeadRows& h, const CacheRows& cache,
             const DecodeKernels& kernels, const float* q) {
  const float* rows[kDecodeRows];
  for (index_t r = 0; r < h.rows; ++r) rows[r] = q + row_at(shape, h, r) * shape.key;
  kernels.prepare(cache, static_cast<float>(shape.scale), h.rows, rows, h.q);
}

// The pieces of one head's keys.
void cut(const AttentionShape& shape, const HeadRows& h, DecodePiece* out, Workspace::Frame& frame) {
  const index_t all = h.run->past + h.run->count;
  const Sequence& sequence = *h.run->sequence;
  const auto pages = frame.take<CachePage>(size((all + kPage - 1) / kPage));
  for (index_t k = 0; k < all; k += kPage) {
    const std::int32_t page = sequence.page_table()[k / kPage];
    pages[k / kPage] = {sequence.pool().keys(page, shape.layer, h.head).data,
                        sequence.pool().values(page, shape.layer, h.head).data};
  }
  for (index_t i = 0; i < h.pieces; ++i) {
    const index_t first = i * h.piece, keys = std::min(h.piece, all - first), at = i * h.wide();
    const auto visible = frame.take<index_t>(size(h.rows));
    for (index_t r = 0; r < h.rows; ++r)
      visible[r] = std::clamp<index_t>(h.run->past + r / h.group + 1 - first, 0, keys);
    out[i] = {h.rows, h.q,        visible,    pages + first / kPage,
              keys,   h.top + at, h.sum + at, h.out + at * decode_columns(shape.value)};
  }
}

CacheRows cache_rows(const AttentionShape& shape, const KvPool& pool) {
  return {.format = kv_format(pool.type()),
          .key = shape.key,
          .value = shape.value,
          .key_bytes = pool.keys(0, shape.layer, 0).row,
          .value_bytes = pool.values(0, shape.layer, 0).row,
          .latent = pool.value() == 0};
}

}  // namespace

bool few_queries(const AttentionShape& shape, const QueryRun& run) {
  return run.count * (shape.heads / shape.kv_heads) <= kDecodeRows;
}

void attend_few(const AttentionShape& shape, std::span<const QueryRun> runs, const float* q, float* out) {
  index_t count = 0, pieces = 0, rows = 0;
  for (const QueryRun& run : runs) count += few_queries(shape, run) ? shape.kv_heads : 0;
  if (count == 0) return;
  const CacheRows cache = cache_rows(shape, runs[0].sequence->pool());
  const DecodeKernels& kernels = decode_kernels(active_isa(), cache.format);
  Workspace::Frame frame(thread_workspace());
  const auto heads = frame.take<HeadRows>(size(std::exchange(count, 0)));
  for (const QueryRun& run : runs)
    for (index_t h = 0; h < shape.kv_heads && few_queries(shape, run); ++h) {
      heads[count] = head_rows(shape, run, h, cache, kernels, frame);
      pieces += heads[count].pieces;
      rows += heads[count++].rows;
    }
  const auto list = frame.take<DecodePiece>(size(pieces));
  for (index_t h = 0, at = 0; h < count; at += heads[h++].pieces) cut(shape, heads[h], list + at, frame);
  if (rows <= 64)  // soon done
    for (index_t h = 0; h < count; ++h) prepare(shape, heads[h], cache, kernels, q);
  else
    parallel_tasks(count, [&](index_t h) { prepare(shape, heads[h], cache, kernels, q); });
  chained_tasks(pieces, [&](index_t i, index_t next) {
    kernels.attend(cache, list[i], next < 0 ? nullptr : &list[next]);
  });
  parallel_tasks(rows, [&](index_t r) {
    const auto [h, row] = find_unit(
        std::span(heads, size(count)), [](const HeadRows& one) { return one.rows; }, r);
    kernels.merge(h->pieces, h->top + row, h->sum + row, h->out + row * decode_columns(shape.value),
                  h->wide(), shape.value, out + row_at(shape, *h, row) * shape.value);
  });
}

}  // namespace sinew::engine
