#include <ATen/ATen.h>

#include "base/error.hpp"
#include "model/forward.hpp"
#include "ops/ring_attention.hpp"

namespace sinew {
namespace {

// Of a row of `tokens`, what the process works on.
RowCut row_cut(const Partition& partition, std::int64_t tokens, at::Device device) {
  RowCut cut{.tensor = partition.tensor, .context = partition.context, .positions = {}};
  const auto context = size_of(partition.context), members = size_of(partition.tensor);
  if (context * members == 1) return cut;
  ensure(tokens % (context * members * (context > 1 ? 2 : 1)) == 0, "rows of {} tokens cannot be cut",
         tokens);
  cut.positions = at::tensor(ring_positions(tokens, context, rank_of(partition.context))).to(device);
  cut.own = tokens / (context * members);
  cut.first = cut.own * rank_of(partition.tensor);
  return cut;
}

}  // namespace

void cut_context(ForwardContext& context, const Partition& partition, std::int64_t tokens,
                 at::Device device) {
  context.cut = row_cut(partition, tokens, device);
  context.row_tokens = tokens;
  if (context.cut.whole()) return;
  context.cos = context.cos.index_select(0, context.cut.positions);
  context.sin = context.sin.index_select(0, context.cut.positions);
}

}  // namespace sinew
