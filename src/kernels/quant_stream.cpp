#include "kernels/quant_stream.hpp"

#include <algorithm>
#include <cstring>

#include "base/index.hpp"
#include "kernels/stretches.hpp"

namespace sinew {
namespace {

index_t tiles(const PackedMatrix& w) { return units(w.rows, kPackedRows); }
index_t units_of(const FewProduct& p) { return units(tiles(*p.w), kFewTiles); }
index_t tile_bytes(const PackedMatrix& w) { return packed_layout(w.format).tile_bytes(w.cols); }

// Up to kFewTiles tiles of one product.
struct Unit {
  const FewProduct* product;
  index_t tile, count;
  const std::byte* data() const { return product->w->data + tile * tile_bytes(*product->w); }
};

// The units of all products, numbered through.
struct List {
  std::span<const FewProduct> products;

  index_t count() const { return count_units(products, units_of); }
  Unit at(index_t number) const {
    const auto [p, i] = find_unit(products, units_of, number);
    return {p, i * kFewTiles, std::min(kFewTiles, tiles(*p->w) - i * kFewTiles)};
  }
};

void store_rows(const FewProduct& p, const Unit& unit, index_t token, index_t tokens, const float* out,
                index_t ld) {
  const index_t row = unit.tile * kPackedRows, columns = std::min(unit.count * kPackedRows, p.w->rows - row);
  for (index_t t = 0; t < tokens; ++t) {
    float* const to = p.y + (token + t) * p.ldy + row;
    const float* const from = out + t * ld;
    if (p.bias == nullptr)
      std::memcpy(to, from, size(columns) * sizeof(float));
    else
      for (index_t i = 0; i < columns; ++i) to[i] = from[i] + p.bias[row + i];
  }
}

// `next`: what this thread reads then.
void work_on(const QuantKernels& kernels, const Unit& unit, const std::byte* next) {
  const FewProduct& p = *unit.product;
  constexpr index_t ld = kFewTiles * kPackedRows;
  alignas(64) float out[kFewRows * ld];
  for (index_t t = 0; t < p.tokens; t += kFewRows) {
    const index_t tokens = std::min(kFewRows, p.tokens - t);
    kernels.dot_tiles(p.w->format, unit.data(), unit.count, p.w->cols, p.rows + t, tokens,
                      t + tokens < p.tokens ? unit.data() : next, out, ld);
    store_rows(p, unit, t, tokens, out, ld);
  }
}

}  // namespace

void few_products(const QuantKernels& kernels, std::span<const FewProduct> products) {
  const List list{products};
  stretched_tasks(
      list.count(),
      [&](double share) {
        return split_units(
            products, units_of, [](const FewProduct& p) { return kFewTiles * tile_bytes(*p.w); }, share);
      },
      [&](index_t i, index_t next) {
        work_on(kernels, list.at(i), next >= 0 ? list.at(next).data() : nullptr);
      });
}

}  // namespace sinew
