// Which rows a tiny run sends to experts of other processes, by what the gate of one process chooses.
#pragma once

#include <ATen/core/grad_mode.h>
#include <set>
#include <vector>

#include "ops/ring_attention.hpp"
#include "parallel/tiny_training.hpp"
#include "plan/step_traffic.hpp"

namespace sinew::test {

// Of the processes of a pipeline stage, which holds each token of a row of the replica whose first process is
// number 0.
inline std::vector<std::int64_t> token_owners(const Layout& l, std::int64_t tokens) {
  std::vector<std::int64_t> owner(static_cast<std::size_t>(tokens));
  const auto own = tokens / l.row_size();
  for (std::int64_t c = 0; c < l.context; ++c) {
    const auto positions = ring_positions(tokens, l.context, c);
    for (std::size_t i = 0; i < positions.size(); ++i)
      owner[static_cast<std::size_t>(positions[i])] = c * l.tensor + static_cast<std::int64_t>(i) / own;
  }
  return owner;
}

class RoutedCount {
 public:
  RoutedCount(const TinyRun& run, const Layout& layout)
      : l_(layout),
        each_(run.config.moe.n_routed_experts / layout.expert),
        in_node_(std::min(layout.expert, layout.ranks_per_node)),
        rows_(static_cast<std::size_t>(layout.stage_size())) {}

  // Rows of each process of a stage.
  std::vector<plan::RoutedRows> rows() const { return rows_; }

  // A token of process `from` with its experts.
  void add(std::int64_t from, const std::vector<std::int64_t>& experts) {
    const auto base = from / l_.expert * l_.expert, own_node = (from - base) / in_node_;
    const auto place = (from - base) % in_node_;
    std::set<std::int64_t> nodes;
    for (const auto e : experts) {
      const auto to = base + e / each_, node = e / each_ / in_node_;
      move(&plan::RoutedRows::direct, from, to);
      const auto relay = base + node * in_node_ + place;
      move(&plan::RoutedRows::inside, relay, to);
      if (node != own_node && nodes.insert(node).second) move(&plan::RoutedRows::nodes, from, relay);
    }
  }

 private:
  void move(ExchangedRows plan::RoutedRows::*kind, std::int64_t from, std::int64_t to) {
    if (from == to) return;
    (rows_[static_cast<std::size_t>(from)].*kind).out += 1;
    (rows_[static_cast<std::size_t>(to)].*kind).in += 1;
  }

  const Layout& l_;
  std::int64_t each_, in_node_;
  std::vector<plan::RoutedRows> rows_;
};

// Rows of a first step, of each process of a stage, in layers that `layers` wants. Of multi-token-prediction
// layers only where rows are not cut and go straight to their experts.
inline std::vector<plan::RoutedRows> routed_rows(const TinyRun& run, const Layout& l,
                                                 const std::function<bool(std::int64_t)>& layers) {
  const at::NoGradGuard no_grad;
  LanguageModel model(run.config, run.dtype, at::kCPU, 7);
  model.set_balance(run.balance);
  const auto batch = tiny_batch(run, 0);
  const auto owner = token_owners(l, run.sequence);
  const auto rows = run.micro / l.replicas();
  RoutedCount count(run, l);
  for (std::int64_t first = 0; first < run.rows; first += rows) {  // the rows of one replica
    const auto replica = first / rows % l.replicas();
    const auto own = batch_tensors(batch, first, rows, run.mask_documents, at::kCPU);
    ForwardTrace trace;
    model.logits(own.tokens, own.documents, nullptr, &trace);
    for (const auto& layer : trace.routing) {
      if (!layers(layer.layer)) continue;
      for (std::int64_t n = 0; n < layer.experts.size(0); ++n) {
        const auto chosen = layer.experts[n].contiguous();
        const auto* const e = chosen.data_ptr<std::int64_t>();
        count.add(replica * l.row_size() + owner[static_cast<std::size_t>(n % run.sequence)],
                  {e, e + chosen.numel()});
      }
    }
    for (const auto& load : model.loss(own.tokens, own.targets, own.documents).loads) {
      if (load.layer < run.config.num_hidden_layers || !layers(load.layer)) continue;
      EXPECT_TRUE(l.row_size() == 1 && l.node_limit == 0);
      for (std::int64_t e = 0; e < load.counts.numel(); ++e)
        for (std::int64_t i = 0; i < load.counts[e].item<std::int64_t>(); ++i) count.add(replica, {e});
    }
  }
  return count.rows();
}

}  // namespace sinew::test
