#include "kernels/float_stream.hpp"

#include <algorithm>

#include "base/error.hpp"
#include "kernels/float_dots_tables.hpp"
#include "kernels/stretches.hpp"

namespace sinew {
namespace {

const FloatDotsTable* table_of([[maybe_unused]] Isa isa) {
#if defined(__x86_64__)
  if (isa >= Isa::avx512) return &float_dots_avx512;
  if (isa == Isa::avx2) return &float_dots_avx2;
#elif defined(__aarch64__)
  if (isa >= Isa::neon) return &float_dots_neon;
#endif
  return nullptr;
}

DotRows dot_rows(Isa isa, BlockFormat format) {
  const FloatDotsTable* const table = table_of(isa);
  if (table == nullptr) return nullptr;
  if (format == BlockFormat::f32) return table->f32;
  if (format == BlockFormat::f16) return table->f16;
  if (format == BlockFormat::bf16) return table->bf16;
  return nullptr;
}

index_t row_bytes(const FloatProduct& p) { return p.cols * (p.format == BlockFormat::f32 ? 4 : 2); }

// Rows of a unit: short enough that threads end together.
index_t unit_rows(const FloatProduct& p) {
  constexpr index_t kUnitBytes = index_t{32} << 10;
  return std::max<index_t>(1, kUnitBytes / std::max<index_t>(1, row_bytes(p)));
}
index_t units_of(const FloatProduct& p) { return units(p.rows, unit_rows(p)); }

// `next`: what this thread reads then.
void work_on(Isa isa, std::span<const FloatProduct> products, index_t unit, const std::byte* next) {
  const auto [p, i] = find_unit(products, units_of, unit);
  const DotRows dot = dot_rows(isa, p->format);
  ensure(dot != nullptr, "no products of floats with {}", isa_name(isa));
  const index_t row = i * unit_rows(*p), count = std::min(unit_rows(*p), p->rows - row);
  dot(p->w + row * row_bytes(*p), count, p->cols, p->x, p->ld, p->tokens, next, p->y + row, p->ldy);
  for (index_t t = 0; t < p->tokens && p->bias != nullptr; ++t)
    for (index_t r = row; r < row + count; ++r) p->y[t * p->ldy + r] += p->bias[r];
}

}  // namespace

bool streams_floats(Isa isa, BlockFormat format) { return dot_rows(isa, format) != nullptr; }

void float_products(Isa isa, std::span<const FloatProduct> products) {
  const auto start = [&](index_t unit) {
    const auto [p, i] = find_unit(products, units_of, unit);
    return p->w + i * unit_rows(*p) * row_bytes(*p);
  };
  stretched_tasks(
      count_units(products, units_of),
      [&](double share) {
        return split_units(
            products, units_of, [](const FloatProduct& p) { return unit_rows(p) * row_bytes(p); }, share);
      },
      [&](index_t first, index_t last, index_t next) {
        for (index_t unit = first; unit < last; ++unit) {
          const index_t then = unit + 1 < last ? unit + 1 : next;
          work_on(isa, products, unit, then >= 0 ? start(then) : nullptr);
        }
      });
}

}  // namespace sinew
