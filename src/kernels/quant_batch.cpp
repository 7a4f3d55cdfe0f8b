#include "kernels/quant_batch.hpp"
#include "base/index.hpp"

#include <cstring>

namespace sinew {
QuantBatch take_batch(Workspace::Frame& frame, index_t tokens, index_t cols) {
  const index_t wide = padded_cols(cols);
  return {tokens,
          cols,
          frame.take<std::int8_t>(size(tokens * wide)),
          frame.take<float>(size(tokens * spans(cols))),
          frame.take<std::int32_t>(size(tokens * (wide / 16))),
          frame.take<float>(size(tokens * (wide / 32)))};
}

const QuantRow* QuantBatch::rows(Workspace::Frame& frame) const {
  auto* const out = frame.take<QuantRow>(size(tokens));
  for (index_t t = 0; t < tokens; ++t) out[t] = row(t);
  return out;
}

TiledBatch take_tiles(Workspace::Frame& frame, index_t tokens, index_t cols) {
  const index_t groups = units(tokens, 16);
  return {tokens, cols, frame.take<std::int8_t>(size(groups * 16 * padded_cols(cols))),
          frame.take<float>(size(groups * 16 * spans(cols))),
          frame.take<std::int32_t>(size(groups * 16 * spans(cols)))};
}

void TiledBatch::put(index_t span, index_t place, const std::int8_t* from, float factor,
                     std::int32_t sum) const {
  std::int8_t* const to = row(span, place);
  for (index_t step = 0; step < steps(span); ++step) std::memcpy(to + step * 1024, from + step * 64, 64);
  scale[span * groups() * 16 + place] = factor;
  sums[span * groups() * 16 + place] = sum;
}

void TiledBatch::clear(index_t span, index_t place) const {
  static constexpr std::int8_t zeros[kSpan] = {};
  put(span, place, zeros, 0, 0);
}

void fill_group(const QuantBatch& batch, const std::int32_t* index, index_t first, index_t count,
                const TiledBatch& out, index_t group) {
  for (index_t r = 0; r < 16; ++r)
    for (index_t s = 0; s < spans(batch.cols); ++s) {
      if (r >= count) {
        out.clear(s, group * 16 + r);
        continue;
      }
      const QuantRow row = batch.row(index != nullptr ? index[r] : first + r);
      std::int32_t sum = 0;
      for (index_t i = s * 16; i < s * 16 + out.steps(s) * 4; ++i) sum += row.sums[i];
      out.put(s, group * 16 + r, row.q + s * kSpan, row.scale[s], sum);
    }
}

}  // namespace sinew
