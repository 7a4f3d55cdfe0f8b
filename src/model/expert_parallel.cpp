#include "model/expert_parallel.hpp"

#include <ATen/ATen.h>

#include "base/error.hpp"
#include "ops/exchange.hpp"

namespace sinew {
namespace {

using at::Tensor;

// counts [members, n] int64 on the CPU, row r for member r -> the rows the members have for this one.
Tensor swap_counts(Group& group, const Tensor& counts) {
  const std::vector<std::int64_t> ones(static_cast<std::size_t>(group.size()), 1);
  const auto out = at::empty_like(counts);
  group.all_to_all(out, counts, ones, ones);
  return out;
}

std::vector<std::int64_t> row_sums(const Tensor& counts) {
  const auto sums = counts.sum(1).contiguous();
  return {sums.data_ptr<std::int64_t>(), sums.data_ptr<std::int64_t>() + sums.numel()};
}

// rows [M, H] -> [N, H]: the sum over k of the row in slot[n, k]; slot M stands for nothing.
Tensor sum_of_slots(const Tensor& rows, const Tensor& slot) {
  const auto padded = at::cat({rows, at::zeros({1, rows.size(1)}, rows.options())});
  return padded.index_select(0, slot.reshape({-1})).view({slot.size(0), slot.size(1), rows.size(1)}).sum(1);
}

struct Formats {
  RowFormat out, back;  // of tokens to experts, and of what comes back
};
Formats formats_of(const Partition& p) {
  return p.fp8_dispatch ? Formats{RowFormat::fp8, RowFormat::bf16}
                        : Formats{RowFormat::exact, RowFormat::exact};
}

struct Tokens {
  Tensor x, weights, experts, kept;  // [N, H], [N, K], [N, K], [N, K] or undefined
};

// Each assignment is a row of its own to the member of `group` that holds its expert.
Tensor direct(const Tokens& t, std::int64_t n_experts, const ExpertWeights& local, const GroupPtr& group,
              const Formats& formats, const std::function<Tensor()>& beside, Tensor& besides) {
  if (size_of(group) == 1) {
    if (beside) besides = beside();
    return moe_experts(t.x, t.weights, dispatch(t.experts, t.kept, n_experts), local);
  }
  const auto where = dispatch(t.experts, t.kept, n_experts);
  const auto members = static_cast<std::int64_t>(group->size()), each = n_experts / members;
  const auto ends = at::tensor(where.offsets, at::TensorOptions(at::kLong));
  const auto counts = (ends.narrow(0, 1, n_experts) - ends.narrow(0, 0, n_experts)).view({members, each});
  const auto coming = swap_counts(*group, counts.contiguous());
  const auto sent = row_sums(counts), received = row_sums(coming);

  const auto token = at::div(where.assignment, t.experts.size(1), "floor");
  Exchange there(group, sent, received, formats.out, formats.back);
  auto flying = there.start(t.x.index_select(0, token),
                            t.weights.reshape({-1}).index_select(0, where.assignment).unsqueeze(1));
  if (beside) besides = beside();
  const auto [rows, row_weights] = there.finish(flying);

  // Received rows lie by sender, then by expert.
  const auto ids = at::arange(each, at::TensorOptions(at::kLong)).repeat({members});
  const auto expert_of = at::repeat_interleave(ids, coming.reshape({-1})).unsqueeze(1).to(t.x.device());
  const auto y = moe_experts(rows, row_weights, dispatch(expert_of, {}, each), local);

  Exchange home(group, received, sent, formats.back, formats.out);
  const auto back = home.finish(home.start(y));
  return sum_of_slots(back.rows, where.slot);
}

// Which of `nodes` each token has experts on, as (node, token) pairs by node then token.
struct Visits {
  Tensor token;                    // [P] int64
  std::vector<std::int64_t> sent;  // pairs a node
  Tensor place;                    // [N, nodes] int64: the pair's number, P where there is none
};

Visits visits_of(const Tensor& node, const Tensor& kept, std::int64_t nodes) {
  const auto tokens = node.size(0);
  auto visited = at::zeros({tokens, nodes}, node.options());
  const auto ones = kept.defined() ? kept.to(at::kLong) : at::ones_like(node);
  visited.scatter_add_(1, node, ones).clamp_max_(1);
  const auto by_node = visited.t().contiguous();               // [nodes, N]
  const auto pairs = by_node.view({-1}).nonzero().view({-1});  // node * N + token
  const auto number = by_node.view({-1}).cumsum(0) - 1;
  const auto place = at::where(by_node.view({-1}) > 0, number, at::full_like(number, pairs.numel()));
  return {.token = at::remainder(pairs, tokens),
          .sent = row_sums(by_node.to(at::kCPU)),
          .place = place.view({nodes, tokens}).t().contiguous()};
}

Tensor by_nodes(const Tokens& t, std::int64_t n_experts, const ExpertWeights& local, const Partition& p,
                const std::function<Tensor()>& beside, Tensor& besides) {
  const auto& across = p.expert_across_nodes;
  const std::int64_t nodes = across->size(), each = n_experts / nodes, k = t.experts.size(1);
  const auto formats = formats_of(p);
  const auto node = at::div(t.experts, each, "floor");
  const auto visits = visits_of(node, t.kept, nodes);

  // What goes with a token: for each of its choices the expert's number on that node (-1: elsewhere), and
  // the weights, whose gradients come back.
  const auto pairs = visits.token.numel();
  const auto of_pair = at::repeat_interleave(at::arange(nodes, at::TensorOptions(at::kLong)),
                                             at::tensor(visits.sent, at::TensorOptions(at::kLong)));
  const auto target = of_pair.to(t.x.device()).unsqueeze(1);  // [P, 1]
  auto here = node.index_select(0, visits.token) == target;
  if (t.kept.defined()) here = here.logical_and(t.kept.index_select(0, visits.token));
  const auto ids = at::where(here, t.experts.index_select(0, visits.token) - target * each,
                             at::full({}, -1, node.options()))
                       .to(at::kInt);  // [P, K]

  const auto counts = at::tensor(visits.sent, at::TensorOptions(at::kLong)).unsqueeze(1);
  const auto received = row_sums(swap_counts(*across, counts));
  Exchange there(across, visits.sent, received, formats.out, formats.back);
  auto flying = there.start(t.x.index_select(0, visits.token), t.weights.index_select(0, visits.token));
  std::int64_t arriving = 0;
  for (const auto n : received) arriving += n;
  const auto arrived_ids = at::empty({arriving, k}, ids.options());
  const auto ids_work = across->all_to_all_async(arrived_ids, ids.contiguous(), received, visits.sent);
  if (beside) besides = beside();
  ids_work->wait();
  const auto [rows, row_weights] = there.finish(flying);
  ensure(pairs == visits.place.max().item<std::int64_t>() || pairs > 0, "tokens without a node");

  const auto long_ids = arrived_ids.to(at::kLong);
  const Tokens relayed{rows, row_weights, long_ids.clamp_min(0), long_ids >= 0};
  // Inside a node rows are as they came over the network: what 8 bits could not hold is lost already.
  Tensor nothing;
  const auto y = direct(relayed, each, local, p.expert_in_node, formats, {}, nothing);

  Exchange home(across, received, visits.sent, formats.back, formats.out);
  const auto back = home.finish(home.start(y));
  return sum_of_slots(back.rows, visits.place);
}

}  // namespace

Tensor experts_elsewhere(const Tensor& x, const Tensor& weights, const Tensor& experts, const Tensor& kept,
                         std::int64_t n_experts, const ExpertWeights& local, const Partition& partition,
                         const std::function<Tensor()>& beside) {
  const Tokens tokens{x, weights, experts, kept};
  Tensor besides;
  const auto y =
      partition.expert_across_nodes != nullptr
          ? by_nodes(tokens, n_experts, local, partition, beside, besides)
          : direct(tokens, n_experts, local, partition.expert, formats_of(partition), beside, besides);
  return besides.defined() ? y + besides : y;
}

}  // namespace sinew
