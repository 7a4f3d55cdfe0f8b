#include "plan/step_traffic.hpp"

#include <algorithm>

namespace sinew::plan {
namespace {

class Counter {
 public:
  Counter(const ModelConfig& model, const sinew::Layout& layout, const StepWork& work, const Place& place)
      : c_(model),
        l_(layout),
        w_(work),
        p_(place),
        held_(held_network(model, layout, work.sequence, place)),
        batch_{work.rows, work.sequence, work.bf16 ? 2 : 4} {}

  SentBytes count(const RoutedRows& rows) {
    state();
    for (const StagePart& part : held_.chunks) {
      tensor(part);
      context(part);
      balance(part);
    }
    pipeline();
    experts(rows);
    once_a_step();
    std::erase_if(sent_, [](const auto& entry) { return entry.second == 0; });
    return sent_;
  }

 private:
  void add(const std::string& group, const char* operation, std::int64_t bytes) {
    sent_[{group, operation}] += bytes;
  }
  void reduce(const std::string& group, std::int64_t elements, std::int64_t members, std::int64_t rank,
              std::int64_t width, std::int64_t times = 1) {
    if (members > 1) add(group, "all_reduce", times * all_reduce_bytes(elements, members, rank, width));
  }

  // Weights, gradients and, for Muon, directions.
  void state() {
    const UnitPasses passes = unit_passes(c_, l_, held_, w_, p_);
    const auto holders = embedding_holders();
    for (const StateRun& run : held_.runs) {
      const std::int64_t n = run.members, piece = run.piece();
      const std::string shard = shard_group(run);
      if (n > 1) {
        const auto gathers = l_.zero >= 3 ? passes.gathers[run.unit] : 1;
        const auto scatters = l_.zero >= 2 ? passes.scatters[run.unit] : 1;
        add(shard, "all_gather", gathers * all_gather_bytes(piece, n, batch_.width));
        add(shard, "reduce_scatter", scatters * reduce_scatter_bytes(piece, n, 4));
        if (w_.muon && run.name.starts_with("layer")) add(shard, "all_gather", all_gather_bytes(piece, n, 4));
      }
      if (w_.muon && run.name.starts_with("layer") && l_.tensor > 1)
        add("tensor", "all_gather", all_gather_bytes(run.joined, l_.tensor, 4));
      const StateCopies copies = copies_of(run, l_, p_);
      reduce(copies.group, piece, copies.members, copies.rank, 4);
      if (run.name == "embedding" && holders.size() > 1)
        reduce("embedding", piece, static_cast<std::int64_t>(holders.size()),
               std::find(holders.begin(), holders.end(), p_.pipeline) - holders.begin(), 4);
    }
  }
  std::vector<std::int64_t> embedding_holders() const {
    std::vector<std::int64_t> holders;
    for (std::int64_t rank = 0; rank < l_.pipeline; ++rank) {
      const auto chunks = held_chunks(c_, l_, w_.sequence, rank);
      if (std::any_of(chunks.begin(), chunks.end(),
                      [&](const StagePart& part) { return stage_holds_embedding(c_, part); }))
        holders.push_back(rank);
    }
    return holders;
  }

  std::int64_t layer_times() const { return w_.recompute ? 2 : 1; }  // forward

  void tensor(const StagePart& part) {
    if (l_.tensor == 1) return;
    const TensorMoves moves = tensor_moves(c_, part, l_, batch_);
    const std::int64_t again = layer_times() - 1, t = l_.tensor, width = batch_.width, m = w_.micro_batches;
    // Forward and backward together, each the other's mirror.
    const std::int64_t both =
        moves.layers.gathered + moves.layers.scattered + moves.ends.gathered + moves.ends.scattered;
    add("tensor", "all_gather", m * all_gather_bytes(both + again * moves.layers.gathered, t, width));
    add("tensor", "reduce_scatter",
        m * reduce_scatter_bytes(both + again * moves.layers.scattered, t, width));
    if (part.head) add("tensor", "all_reduce", m * cross_entropy_bytes(c_, l_, batch_, p_.tensor));
  }

  void context(const StagePart& part) {
    if (l_.context == 1) return;
    const RingBytes ring = ring_bytes(c_, l_, batch_);
    const std::int64_t layers = part.end - part.first + (part.head ? c_.num_nextn_predict_layers : 0);
    add("context", "send", w_.micro_batches * layers * (layer_times() * ring.forward + ring.backward));
  }

  // Counts of tokens by expert, where no process sees all of them.
  void balance(const StagePart& part) {
    using Balance = StepWork::Balance;
    const std::int64_t row_rank = p_.context * l_.tensor + p_.tensor;
    const std::int64_t batch_rank = p_.data * l_.shard + p_.shard;
    const auto both = [&](std::int64_t elements, std::int64_t width, bool replicas) {
      reduce("context+tensor", elements, l_.row_size(), row_rank, width, w_.micro_batches);
      if (replicas) reduce("data+shard", elements, l_.replicas(), batch_rank, width, w_.micro_batches);
    };
    const std::int64_t layers = moe_layers(c_, part), each = c_.moe.n_routed_experts + w_.device_groups;
    if (w_.balance == Balance::by_sequence) both(layers * w_.rows * each, 8, false);
    if (w_.balance == Balance::by_batch) both(layers * each, 8, true);
    if (w_.balance == Balance::joint && part.head) both(c_.moe.n_routed_experts, 4, true);
  }

  void pipeline() {
    if (l_.pipeline == 1) return;
    const Schedule schedule = trainer_schedule(l_, 1);
    const std::int64_t flow =
        stage_flow_bytes(c_, l_, batch_, w_.balance == StepWork::Balance::joint) * w_.micro_batches;
    const int own = static_cast<int>(p_.pipeline);
    for (int chunk = 0; chunk < schedule.chunks; ++chunk) {
      const int stage = schedule.stage_of(own, chunk);
      if (stage + 1 < schedule.stages() && schedule.rank_of(stage + 1) != own) add("pipeline", "send", flow);
      if (stage > 0 && schedule.rank_of(stage - 1) != own) add("pipeline", "send", flow);
    }
  }

  void experts(const RoutedRows& rows) {
    if (l_.expert == 1) return;
    std::int64_t calls = 0;
    for (const StagePart& part : held_.chunks) calls += w_.micro_batches * moe_layers(c_, part);
    const auto with = [&](ExchangedRows r) {
      r.calls = calls;
      return r;
    };
    const auto all = [&](const std::string& group, const ExpertBytes& bytes) {
      add(group, "all_to_all", layer_times() * bytes.forward + bytes.backward);
    };
    const std::int64_t experts = c_.moe.n_routed_experts;
    if (l_.node_limit == 0)
      return all("expert", expert_bytes(c_, l_, l_.expert, experts, with(rows.direct), batch_.width));
    const std::int64_t in_node = std::min(l_.expert, l_.ranks_per_node), nodes = l_.expert / in_node;
    all("expert_across_nodes", node_bytes(c_, l_, nodes, with(rows.nodes), batch_.width));
    all("expert_in_node", expert_bytes(c_, l_, in_node, experts / nodes, with(rows.inside), batch_.width));
  }

  void once_a_step() {
    const std::int64_t n = l_.size();
    const std::int64_t rank = ((p_.pipeline * l_.data + p_.data) * l_.shard + p_.shard) * l_.row_size() +
                              p_.context * l_.tensor + p_.tensor;
    if (w_.mask_documents) reduce("data+shard", 1, l_.replicas(), p_.data * l_.shard + p_.shard, 8);
    reduce("world", 5, n, rank, 8);  // losses
    const std::int64_t layers = c_.num_hidden_layers + c_.num_nextn_predict_layers;
    if (c_.moe.n_routed_experts > 0) reduce("world", layers * (2 * c_.moe.n_routed_experts + 2), n, rank, 8);
    reduce("world", 1, n, rank, 8);  // gradient norm
    if (w_.stop_signal) reduce("world", 1, n, rank, 8);
  }

  const ModelConfig& c_;
  const sinew::Layout& l_;
  const StepWork& w_;
  Place p_;
  HeldNetwork held_;
  MicroBatch batch_;
  SentBytes sent_;
};

}  // namespace

SentBytes step_traffic(const ModelConfig& model, const sinew::Layout& layout, const StepWork& work,
                       const Place& place, const RoutedRows& rows) {
  return Counter(model, layout, work, place).count(rows);
}

RoutedRows even_rows(const ModelConfig& model, const sinew::Layout& l, const StepWork& work,
                     const Place& place) {
  RoutedRows rows;
  if (l.expert == 1) return rows;
  std::int64_t layers = 0;
  for (const StagePart& part : held_network(model, l, work.sequence, place).chunks)
    layers += moe_layers(model, part);
  const std::int64_t tokens = layers * work.micro_batches * work.rows * work.sequence / l.row_size();
  const std::int64_t k = model.moe.num_experts_per_tok, assigned = tokens * k;
  const auto to_others = [](std::int64_t count, std::int64_t members) {
    const std::int64_t moved = count * (members - 1) / members;
    return ExchangedRows{0, moved, moved};
  };
  if (l.node_limit == 0) {
    rows.direct = to_others(assigned, l.expert);
    return rows;
  }
  const std::int64_t in_node = std::min(l.expert, l.ranks_per_node), nodes = l.expert / in_node;
  rows.nodes = to_others(tokens * std::min({l.node_limit, nodes, k}), nodes);
  rows.inside = to_others(assigned, in_node);
  return rows;
}

}  // namespace sinew::plan
