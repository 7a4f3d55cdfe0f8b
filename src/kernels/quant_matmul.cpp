#include "kernels/quant_matmul.hpp"

#include <algorithm>
#include <cstring>

#include "base/error.hpp"
#include "base/team.hpp"
#include "kernels/quant_stream.hpp"

namespace sinew {
namespace {

constexpr index_t kGroupsHeld = 4;  // groups whose sums stay near while a pair of tiles goes by

std::size_t size(index_t n) { return static_cast<std::size_t>(n); }
index_t tiles(const PackedMatrix& w) { return round_up(w.rows, kPackedRows) / kPackedRows; }
index_t units(index_t count, index_t unit) { return (count + unit - 1) / unit; }

void copy_out(const float* from, const float* bias, index_t columns, float* to) {
  if (bias == nullptr && columns == 32) {  // nearly always: inline
    std::memcpy(to, from, 32 * sizeof(float));
    return;
  }
  if (bias == nullptr) {
    std::memcpy(to, from, size(columns) * sizeof(float));
    return;
  }
  for (index_t i = 0; i < columns; ++i) to[i] = from[i] + bias[i];
}

}  // namespace

QuantBatch take_batch(Workspace::Frame& frame, index_t tokens, index_t cols) {
  const index_t wide = padded_cols(cols);
  return {tokens, cols, frame.take<std::int8_t>(size(tokens * wide)),
          frame.take<float>(size(tokens * spans(cols))),
          frame.take<std::int32_t>(size(tokens * (wide / 16)))};
}

const QuantRow* QuantBatch::rows(Workspace::Frame& frame) const {
  auto* const out = frame.take<QuantRow>(size(tokens));
  for (index_t t = 0; t < tokens; ++t) out[t] = row(t);
  return out;
}

TiledBatch take_tiles(Workspace::Frame& frame, index_t groups, index_t cols) {
  return {groups, cols, frame.take<std::int8_t>(size(groups * 16 * padded_cols(cols))),
          frame.take<float>(size(groups * 16 * spans(cols))),
          frame.take<std::int32_t>(size(groups * 16 * spans(cols)))};
}

void fill_group(const QuantBatch& batch, const std::int32_t* index, index_t first, index_t count,
                const TiledBatch& out, index_t group) {
  const index_t steps = padded_cols(batch.cols) / 64, tokens = out.groups * 16;
  const auto place_of = [&](index_t step, index_t r) {
    return out.at(step / (kSpan / 64), group) + step % (kSpan / 64) * 1024 + r * 64;
  };
  for (index_t r = 0; r < 16; ++r) {
    const index_t place = group * 16 + r;
    if (r >= count) {
      for (index_t s = 0; s < steps; ++s) std::memset(place_of(s, r), 0, 64);
      for (index_t s = 0; s < spans(batch.cols); ++s) {
        out.scale[s * tokens + place] = 0;
        out.sums[s * tokens + place] = 0;
      }
      continue;
    }
    const QuantRow row = batch.row(index != nullptr ? index[r] : first + r);
    for (index_t s = 0; s < steps; ++s) std::memcpy(place_of(s, r), row.q + s * 64, 64);
    for (index_t s = 0; s < spans(batch.cols); ++s) {
      std::int32_t sum = 0;
      for (index_t i = s * 16; i < std::min((s + 1) * 16, padded_cols(batch.cols) / 16); ++i)
        sum += row.sums[i];
      out.scale[s * tokens + place] = row.scale[s];
      out.sums[s * tokens + place] = sum;
    }
  }
}

// Weights are unpacked once, and kept in the second-level cache with the sums of the tokens at hand; a span
// of those tokens stays in the first while all pairs of tiles go by.
void BlockProduct::operator()(const TiledBatch& x, index_t tokens, float* out, index_t ld,
                              const float* bias) const {
  const index_t count = spans(w.cols), pair_bytes = 32 * kSpan, pairs = units(columns(), 32);
  const index_t tile_bytes = packed_layout(w.format).tile_bytes(w.cols), end_tile = tiles(w);
  Workspace::Frame frame(thread_workspace());
  auto* const unpacked = frame.take<std::int8_t>(size(pairs * count * pair_bytes));
  float* const scale = frame.take<float>(size(pairs * count * 32));
  float* const acc = frame.take<float>(size(pairs * kGroupsHeld * 16 * 32));
  for (index_t i = 0; i < 2 * pairs; ++i) {
    const index_t tile = row / kPackedRows + i;
    for (index_t s = 0; s < count; ++s) {
      std::int8_t* const b = unpacked + (i / 2 * count + s) * pair_bytes + i % 2 * (pair_bytes / 2);
      float* const b_scale = scale + (i / 2 * count + s) * 32 + i % 2 * kPackedRows;
      if (tile < end_tile) {
        kernels.unpack_span(w.format, w.data + tile * tile_bytes, w.cols, s, b, b_scale);
      } else {  // the other half of the last pair
        std::memset(b, 0, size(pair_bytes / 2));
        std::fill_n(b_scale, kPackedRows, 0.0F);
      }
    }
  }
  kernels.begin();
  for (index_t g = 0; g < x.groups; g += kGroupsHeld) {
    const index_t held = std::min(kGroupsHeld, x.groups - g), token = g * 16;
    for (index_t s = 0; s < count; ++s)
      for (index_t p = 0; p < pairs; ++p)
        kernels.product(x.at(s, g), x.steps(s) * 1024, held, x.steps(s),
                        unpacked + (p * count + s) * pair_bytes, scale + (p * count + s) * 32,
                        x.scale + s * x.groups * 16 + token, x.sums + s * x.groups * 16 + token,
                        acc + p * kGroupsHeld * 16 * 32, s == 0);
    for (index_t t = token; t < std::min(tokens, token + held * 16); ++t)
      for (index_t p = 0; p < pairs; ++p)
        copy_out(acc + (p * kGroupsHeld * 16 + t - token) * 32, bias != nullptr ? bias + p * 32 : nullptr,
                 std::min<index_t>(32, columns() - p * 32), out + t * ld + p * 32);
  }
  kernels.end();
}

void quant_matmul(Isa isa, const float* x, index_t ld, index_t tokens, index_t cols,
                  std::span<const QuantProduct> products) {
  const QuantKernels* const kernels = quant_kernels(isa);
  ensure(kernels != nullptr, "no integer products with {}", isa_name(isa));
  if (tokens == 0) return;
  Workspace::Frame frame(thread_workspace());
  const QuantBatch batch = take_batch(frame, tokens, cols);
  if (tokens <= kFewTokens) {
    for (index_t t = 0; t < tokens; ++t) kernels->quantize_row(x + t * ld, cols, batch.row(t));
    const QuantRow* const rows = batch.rows(frame);
    auto* const few = frame.take<FewProduct>(products.size());
    for (std::size_t i = 0; i < products.size(); ++i) {
      const QuantProduct& p = products[i];
      few[i] = {p.w, rows, tokens, p.y, p.ldy, p.bias};
    }
    return few_products(*kernels, {few, products.size()});
  }
  const index_t groups = units(tokens, 16);
  const TiledBatch tiled = take_tiles(frame, groups, cols);
  parallel_tasks(groups, [&](index_t g) {
    const index_t count = std::min<index_t>(16, tokens - g * 16);
    for (index_t t = g * 16; t < g * 16 + count; ++t) kernels->quantize_row(x + t * ld, cols, batch.row(t));
    fill_group(batch, nullptr, g * 16, count, tiled, g);
  });
  const index_t unit = kBlockRows / kPackedRows;
  index_t tasks = 0;
  for (const QuantProduct& p : products) tasks += units(tiles(*p.w), unit);
  parallel_tasks(tasks, [&](index_t task) {
    const QuantProduct* p = products.data();
    for (; task >= units(tiles(*p->w), unit); ++p) task -= units(tiles(*p->w), unit);
    const index_t row = task * kBlockRows;
    BlockProduct{*kernels, *p->w, row}(tiled, tokens, p->y + row, p->ldy,
                                       p->bias != nullptr ? p->bias + row : nullptr);
  });
}

}  // namespace sinew
