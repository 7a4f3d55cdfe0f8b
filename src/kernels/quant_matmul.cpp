#include "kernels/quant_matmul.hpp"

#include <algorithm>
#include <cstring>

#include "base/error.hpp"
#include "base/index.hpp"
#include "base/team.hpp"
#include "kernels/quant_slices.hpp"
#include "kernels/quant_stream.hpp"
#include "kernels/unit_list.hpp"

namespace sinew {
namespace {

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

constexpr index_t kTaskSlices = kMostJobs;  // of a task of many tokens
index_t slices(const PackedMatrix& w) { return units(w.rows, kSliceRows); }

// One task: slices [first, first + kTaskSlices) of one product. Tokens that fill more than one lot meet all
// of them at once: then a token's results are stored in runs of 512 bytes instead of 128, which took a third
// of the time of tile products of 512 tokens. For fewer, sums of one slice leave more room in the near cache.
void many_tokens(const QuantKernels& kernels, const TiledBatch& x, index_t tokens, const QuantProduct& p,
                 index_t first, const Slice& after) {
  constexpr index_t kPiece = kGroupsHeld * 16 * kSliceRows;
  Workspace::Frame frame(thread_workspace());
  SliceJob* const jobs = take_jobs(frame, x.cols, kMostJobs);
  alignas(64) float acc[kMostJobs * kPiece];
  const index_t at_once = x.groups() > kGroupsHeld ? kTaskSlices : 1;
  const index_t end = std::min(first + kTaskSlices, slices(*p.w));
  for (index_t begin = first; begin < end; begin += at_once) {
    const index_t count = std::min(at_once, end - begin), next = begin + at_once;
    for (index_t j = 0; j < count; ++j) {
      jobs[j].slice = {p.w, begin + j};
      jobs[j].acc = acc + j * kPiece;
      jobs[j].coming = next < end ? jobs[j].slice.after(at_once) : after.after(j);
    }
    multiply_slices(kernels, x, {jobs, size(count)}, [&](index_t g, index_t held) {
      for (index_t t = g * 16; t < std::min(tokens, (g + held) * 16); ++t)
        for (index_t j = 0; j < count; ++j) {
          const index_t row = (begin + j) * kSliceRows;
          copy_out(jobs[j].acc + (t - g * 16) * kSliceRows, p.bias != nullptr ? p.bias + row : nullptr,
                   jobs[j].slice.rows(), p.y + t * p.ldy + row);
        }
    });
  }
}

}  // namespace

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
  const TiledBatch tiled = take_tiles(frame, tokens, cols);
  parallel_tasks(tiled.groups(), [&](index_t g) {
    const index_t count = std::min<index_t>(16, tokens - g * 16);
    for (index_t t = g * 16; t < g * 16 + count; ++t) kernels->quantize_row(x + t * ld, cols, batch.row(t));
    fill_group(batch, nullptr, g * 16, count, tiled, g);
  });
  const auto tasks_of = [](const QuantProduct& p) { return units(slices(*p.w), kTaskSlices); };
  chained_tasks(count_units(products, tasks_of), [&](index_t task, index_t next) {
    Slice after;
    if (next >= 0) {
      const auto [p, unit] = find_unit(products, tasks_of, next);
      after = {p->w, unit * kTaskSlices};
    }
    const auto [p, unit] = find_unit(products, tasks_of, task);
    many_tokens(*kernels, tiled, tokens, *p, unit * kTaskSlices, after);
  });
}

}  // namespace sinew
