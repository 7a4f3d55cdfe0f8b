#include "config/layout.hpp"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <numeric>
#include <vector>

#include "base/error.hpp"

namespace sinew {
namespace {

// Of the numbers from 1 to `limit` that `fits`, the nearest to `wanted` (the smaller of two).
template <class Fits>
std::int64_t nearest(std::int64_t wanted, std::int64_t limit, Fits fits) {
  std::int64_t best = 1;
  for (std::int64_t n = 1; n <= limit; ++n)
    if (fits(n) && std::abs(n - wanted) < std::abs(best - wanted)) best = n;
  return best;
}

void fill_data(Layout& l, std::int64_t processes) {
  const std::int64_t others = l.shard * l.context * l.tensor * l.pipeline;
  if (l.data == 0 && processes % others == 0) {
    l.data = processes / others;
    return;
  }
  const auto product = fmt::format("{}shard {} x context {} x tensor {} x pipeline {} = {}",
                                   l.data == 0 ? "" : fmt::format("data {} x ", l.data), l.shard, l.context,
                                   l.tensor, l.pipeline, others * std::max<std::int64_t>(l.data, 1));
  if (l.data == 0)
    fail("layout: {} does not divide the {} processes; the nearest number of processes is {}", product,
         processes, std::max<std::int64_t>(1, (processes + others / 2) / others) * others);
  if (others * l.data == processes) return;
  if (processes % others == 0)
    fail("layout: {}, but there are {} processes; the nearest choice is layout.data = {}", product, processes,
         processes / others);
  fail("layout: {}, but there are {} processes; start {}", product, processes, others * l.data);
}

void check_model(const Layout& l, const ModelConfig& m) {
  const auto divides = [](std::int64_t n, std::int64_t total) { return total % n == 0; };
  const auto heads = m.num_attention_heads;
  const auto kv = m.attention == Attention::mla ? heads : m.num_key_value_heads;
  const auto common = std::gcd(heads, kv);
  if (!divides(l.tensor, common))
    fail("layout.tensor = {} does not divide the {} attention heads{}; the nearest choice is {}", l.tensor,
         heads, kv == heads ? "" : fmt::format(" and {} key heads", kv),
         nearest(l.tensor, common, [&](std::int64_t n) { return divides(n, common); }));
  require(l.tensor <= m.vocab_size && l.tensor <= std::max<std::int64_t>(m.intermediate_size, 1),
          "layout.tensor = {} is more than the model's vocabulary or feed-forward width", l.tensor);
  const auto layers = m.num_hidden_layers;
  if (l.stages() > layers)
    fail(
        "layout: pipeline {} x {} chunks = {} stages, more than the model's {} layers; the nearest choice is "
        "layout.pipeline = {}",
        l.pipeline, l.chunks_per_rank(), l.stages(), layers,
        std::max<std::int64_t>(1, layers / l.chunks_per_rank()));
  if (l.expert == 1) return;
  const auto experts = m.moe.n_routed_experts;
  require(experts > 0, "layout.expert = {}, but the model has no experts; the nearest choice is 1", l.expert);
  const auto good = [&](std::int64_t n) { return divides(n, experts) && divides(n, l.stage_size()); };
  if (!divides(l.expert, experts))
    fail("layout.expert = {} does not divide the model's {} experts; the nearest choice is {}", l.expert,
         experts, nearest(l.expert, experts, good));
  if (!good(l.expert))
    fail(
        "layout.expert = {} does not divide the {} processes of a pipeline stage (data {} x shard {} x "
        "context {} x tensor {}); the nearest choice is {}",
        l.expert, l.stage_size(), l.data, l.shard, l.context, l.tensor, nearest(l.expert, experts, good));
}

// Each micro-batch is shared evenly by the replicas, and whole ones make up the batch.
void check_shares(const Layout& l, const LayoutDemands& d) {
  const auto replicas = l.replicas();
  if (d.batch % d.micro_batch == 0 && d.micro_batch % replicas == 0) return;
  const auto batch = std::max<std::int64_t>(1, (d.batch + replicas / 2) / replicas) * replicas;
  std::int64_t micro = replicas;  // the nearest that divides that batch
  for (std::int64_t n = replicas; n <= batch; n += replicas)
    if (batch % n == 0 && std::abs(n - d.micro_batch) < std::abs(micro - d.micro_batch)) micro = n;
  fail(
      "layout: micro-batches of train.micro_batch = {} do not make up train.batch = {} of which data {} x "
      "shard {} "
      "replicas take {} equal parts; the nearest choice is {}train.micro_batch = {}",
      d.micro_batch, d.batch, l.data, l.shard, replicas,
      batch == d.batch ? "" : fmt::format("train.batch = {} with ", batch), micro);
}

void check_batch(Layout& l, const LayoutDemands& d) {
  const bool given = l.micro_batches > 0;
  if (l.replicas() > 1 && d.micro_batch > 0) check_shares(l, d);
  if (!given) l.micro_batches = d.micro_batch == 0 ? 1 : (d.batch + d.micro_batch - 1) / d.micro_batch;
  const auto unit = l.replicas() * l.micro_batches;
  if ((given || l.replicas() > 1) && d.batch % unit != 0)  // else the last micro-batch may be smaller
    fail(
        "layout: data {} x shard {} x {} micro-batches = {} does not divide train.batch = {}; the nearest "
        "choice is train.batch = {}",
        l.data, l.shard, l.micro_batches, unit, d.batch,
        std::max<std::int64_t>(1, (d.batch + unit / 2) / unit) * unit);
  const auto cut = l.context > 1 ? 2 * l.row_size() : l.row_size();
  if (d.sequence % cut != 0)
    fail(
        "layout: data.sequence = {} is cut in {} (context {}{} x tensor {}) and must be a multiple; the "
        "nearest choice is {}",
        d.sequence, cut, l.context, l.context > 1 ? ", two pieces a process," : "", l.tensor,
        std::max<std::int64_t>(1, (d.sequence + cut / 2) / cut) * cut);
  require(
      d.capacity_factor == 0 || l.row_size() == 1,
      "balance.capacity_factor looks at whole sequences, which layout.tensor = {} and layout.context = {} "
      "cut; set it to 0 or both to 1",
      l.tensor, l.context);
}

void check_nodes(Layout& l, const ModelConfig& m, std::int64_t processes) {
  if (l.ranks_per_node == 0) l.ranks_per_node = processes;
  if (processes % l.ranks_per_node != 0)
    fail("layout.ranks_per_node = {} does not divide the {} processes; the nearest choice is {}",
         l.ranks_per_node, processes,
         nearest(l.ranks_per_node, processes, [&](std::int64_t n) { return processes % n == 0; }));
  if (l.node_limit == 0) return;
  const auto in_node = std::min(l.expert, l.ranks_per_node), nodes = l.expert / in_node;
  require(l.expert % in_node == 0 && l.ranks_per_node % in_node == 0,
          "layout.node_limit = {} needs expert groups that fill nodes, but layout.expert = {} does not fit "
          "{} processes a node; the nearest choice is layout.node_limit = 0",
          l.node_limit, l.expert, l.ranks_per_node);
  // How many nodes the gate itself lets a token reach: topk_group groups, each within one node or over
  // several whole ones.
  const auto groups = m.moe.topk_method == TopkMethod::greedy ? 1 : m.moe.n_group;
  const auto chosen = groups == 1 ? 1 : m.moe.topk_group;
  auto reach = std::min(nodes, m.moe.num_experts_per_tok);
  if (groups % nodes == 0) reach = std::min(reach, chosen);
  if (groups < nodes && nodes % groups == 0) reach = std::min(reach, chosen * (nodes / groups));
  if (l.node_limit < reach)
    fail(
        "layout.node_limit = {}, but the model's gate (top {} of {} experts, {} of {} groups) reaches {} of "
        "{} nodes; the nearest choice is {}",
        l.node_limit, m.moe.num_experts_per_tok, m.moe.n_routed_experts, chosen, groups, reach, nodes, reach);
}

}  // namespace

std::int64_t Layout::chunks_per_rank() const {
  return schedule == "dualpipe-v" && pipeline > 1    ? 2
         : schedule == "interleaved" && pipeline > 1 ? chunks
                                                     : 1;
}

std::int64_t Layout::expert_shard() const {
  if (shard == 1) return 1;
  const auto copies = expert_replicas();
  return copies / std::gcd(copies, data);
}

Layout check_layout(Layout layout, const LayoutDemands& demands, const ModelConfig& model) {
  fill_data(layout, demands.processes);
  check_model(layout, model);
  check_batch(layout, demands);
  check_nodes(layout, model, demands.processes);
  require(layout.chunks == 1 || layout.schedule == "interleaved" || layout.schedule == "dualpipe-v",
          "layout.chunks = {} is of layout.schedule = \"interleaved\", not \"{}\"", layout.chunks,
          layout.schedule);
  return layout;
}

std::string layout_name(const Layout& l) {
  std::string out;
  const auto add = [&](const char* name, std::int64_t n) {
    if (n > 1) out += fmt::format("{}{}={}", out.empty() ? "" : " ", name, n);
  };
  add("data", l.data);
  add("shard", l.shard);
  if (l.shard > 1) add("zero", l.zero);
  if (l.shard > 1 && l.zero == 1) out += " zero=1";
  add("context", l.context);
  add("tensor", l.tensor);
  add("pipeline", l.pipeline);
  if (l.pipeline > 1) out += fmt::format(" {}", l.schedule);
  if (l.pipeline > 1) add("chunks", l.chunks);
  add("expert", l.expert);
  if (l.node_limit > 0) add("ranks_per_node", l.ranks_per_node);
  if (l.node_limit > 0) out += fmt::format(" node_limit={}", l.node_limit);
  if (l.dispatch != "exact") out += " " + l.dispatch;
  return out.empty() ? "1" : out;
}

}  // namespace sinew
