#include "kernels/quant_stream.hpp"

#include <algorithm>
#include <cstring>

#include "base/index.hpp"
#include "kernels/stretches.hpp"

namespace sinew {
namespace {

index_t tiles(const PackedMatrix& w) { return units(w.rows, kPackedRows); }
index_t tiles_of(const FewProduct& p) { return tiles(*p.w); }
index_t tile_bytes(const PackedMatrix& w) { return packed_layout(w.format).tile_bytes(w.cols); }

// Tiles of one product that lie one after another.
struct Run {
  const FewProduct* product = nullptr;
  index_t tile = 0, count = 0;
  const std::byte* data() const { return product->w->data + tile * tile_bytes(*product->w); }
};

// The tiles of all products, numbered through.
struct List {
  std::span<const FewProduct> products;

  index_t count() const { return count_units(products, tiles_of); }
  // What follows from tile `first` on, up to `last` and up to `most` tiles.
  Run run(index_t first, index_t last, index_t most) const {
    const auto [p, tile] = find_unit(products, tiles_of, first);
    return {p, tile, std::min({last - first, tiles_of(*p) - tile, most})};
  }
};

// Results stay near until many are there: storing a few lines that are in no near cache holds the reading up
// for 0.3 us, in which 5 KB of weights would come.
constexpr index_t kTilesHeld = 64, kHeld = kTilesHeld * kPackedRows;

void store_rows(const Run& run, index_t token, index_t tokens, const float* out) {
  const FewProduct& p = *run.product;
  const index_t row = run.tile * kPackedRows, columns = std::min(run.count * kPackedRows, p.w->rows - row);
  for (index_t t = 0; t < tokens; ++t) {
    float* const to = p.y + (token + t) * p.ldy + row;
    const float* const from = out + t * kHeld;
    if (p.bias == nullptr)
      std::memcpy(to, from, size(columns) * sizeof(float));
    else
      for (index_t i = 0; i < columns; ++i) to[i] = from[i] + p.bias[row + i];
  }
}

// A product's activations were mostly written by another core: fetched at once they cost one wait, and line
// by line between the weights one each.
void fetch_rows(const FewProduct& p) {
  const index_t wide = padded_cols(p.w->cols);
  const auto fetch = [](const void* at, index_t bytes) {
    for (index_t i = 0; i < bytes; i += 64) __builtin_prefetch(static_cast<const std::byte*>(at) + i, 0, 3);
  };
  for (index_t t = 0; t < p.tokens; ++t) {
    fetch(p.rows[t].q, wide);
    fetch(p.rows[t].sums, wide / 4);
    fetch(p.rows[t].pairs, wide / 8);
  }
}

// `next`: what this thread reads then.
void work_on(const QuantKernels& kernels, const Run& run, const std::byte* next) {
  const FewProduct& p = *run.product;
  alignas(64) float out[kFewRows * kHeld];
  fetch_rows(p);
  for (index_t t = 0; t < p.tokens; t += kFewRows) {
    const index_t tokens = std::min(kFewRows, p.tokens - t);
    kernels.dot_tiles(p.w->format, run.data(), run.count, p.w->cols, p.rows + t, tokens,
                      t + tokens < p.tokens ? run.data() : next, out, kHeld);
    store_rows(run, t, tokens, out);
  }
}

}  // namespace

void few_products(const QuantKernels& kernels, std::span<const FewProduct> products) {
  const List list{products};
  // More tokens than go by at once read the tiles again: these must still be near.
  const bool again = std::ranges::any_of(products, [](const FewProduct& p) { return p.tokens > kFewRows; });
  const index_t most = again ? 4 : kTilesHeld;
  stretched_tasks(
      list.count(),
      [&](double share) {
        return split_units(
            products, tiles_of, [](const FewProduct& p) { return tile_bytes(*p.w); }, share);
      },
      [&](index_t first, index_t last, index_t next) {
        while (first < last) {
          const Run run = list.run(first, last, most);
          first += run.count;
          const index_t then = first < last ? first : next;
          work_on(kernels, run, then >= 0 ? list.run(then, then + 1, 1).data() : nullptr);
        }
      });
}

}  // namespace sinew
