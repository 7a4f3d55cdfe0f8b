// A few steps of training a tiny model on made-up tokens, alone and as one rank of a layout.
#pragma once

#include <ATen/ATen.h>

#include <map>
#include <string>
#include <vector>

#include "comm/mesh.hpp"
#include "comm/ranks.hpp"
#include "config/run_config.hpp"
#include "model/balance.hpp"
#include "model/language_model.hpp"
#include "parallel/partition_of.hpp"
#include "parallel/sharding.hpp"
#include "train/batch.hpp"
#include "train/optimizer.hpp"
#include "train/rows.hpp"

namespace sinew::test {

struct TinyRun {
  ModelConfig config;
  std::int64_t steps = 3, rows = 8, sequence = 16, micro = 8;
  at::ScalarType dtype = at::kFloat;
  BalanceOptions balance{};
  RunConfig::Optimizer optimizer{};
  bool mask_documents = false;
  Recompute recompute = Recompute::none;
};

inline TokenBatch tiny_batch(const TinyRun& run, std::int64_t step) {
  TokenBatch batch;
  batch.rows = run.rows;
  batch.sequence = run.sequence;
  std::uint32_t state = static_cast<std::uint32_t>(step) * 7919u + 17u;
  for (std::int64_t i = 0; i < run.rows * (run.sequence + 1); ++i) {
    state = state * 1664525u + 1013904223u;
    batch.tokens.push_back(
        static_cast<std::int32_t>((state >> 16) % static_cast<std::uint32_t>(run.config.vocab_size)));
    batch.documents.push_back(static_cast<std::int32_t>(i / 13));
  }
  return batch;
}

struct TinyResult {
  std::vector<BatchLoss> losses;
  std::vector<double> norms;
};

// The rows of a batch that this process works on.
inline TokenBatch own_rows_of(const TokenBatch& whole, std::int64_t micro, Mesh* mesh) {
  if (mesh == nullptr) return whole;
  TokenBatch own;
  own.sequence = whole.sequence;
  const auto width = whole.sequence + 1;
  const auto take = [&](const auto& from, auto& to, const RowRun& run) {
    to.insert(to.end(), from.begin() + run.first * width, from.begin() + (run.first + run.count) * width);
  };
  for (const RowRun& run :
       rows_of_replica(whole.rows, micro, mesh->layout().replicas(), mesh->batch()->rank())) {
    own.rows += run.count;
    take(whole.tokens, own.tokens, run);
    take(whole.documents, own.documents, run);
  }
  return own;
}

// `on_step` sees the model and optimizer after each step.
template <class OnEnd>
TinyResult train_tiny(const TinyRun& run, const std::shared_ptr<Mesh>& mesh, OnEnd on_end) {
  const Partition partition = mesh ? partition_of(mesh, run.config, run.sequence) : Partition{};
  LanguageModel model(run.config, run.dtype, at::kCPU, 7, partition);
  model.set_balance(run.balance);
  model.set_recompute(run.recompute);
  const auto sharding = std::dynamic_pointer_cast<Sharding>(partition.hooks);
  Optimizer optimizer = sharding ? Optimizer(model.parameters(), sharding, run.optimizer)
                                 : Optimizer(model.parameters(), run.optimizer);
  TinyResult result;
  for (std::int64_t step = 0; step < run.steps; ++step) {
    const auto batch = own_rows_of(tiny_batch(run, step), run.micro, mesh.get());
    result.losses.push_back(
        forward_backward(model, optimizer, batch, run.micro, run.mask_documents, at::kCPU, mesh.get()));
    const double norm = optimizer.gradient_norm();
    result.norms.push_back(norm);
    optimizer.step(1e-3, norm > 1 ? 1 / norm : 1);
    update_correction_biases(model, result.losses.back().loads, 0.01);
    optimizer.zero_gradients();
  }
  on_end(model, optimizer);
  return result;
}

// The state after a run alone: "weight/NAME" and so on, whole.
using WholeState = std::map<std::string, at::Tensor>;
inline WholeState whole_state(const Optimizer& optimizer) {
  WholeState out;
  for (const auto& t : optimizer.state()) out[t.name] = t.tensor.clone();
  return out;
}

// The largest difference of this process's pieces from `whole`, against the tensor's largest magnitude.
inline double state_difference(const Optimizer& optimizer, const WholeState& whole) {
  double worst = 0;
  for (const auto& t : optimizer.state()) {
    const auto& reference = whole.at(t.name);
    const double scale = std::max(1e-6, reference.abs().max().item<double>());
    std::int64_t begin = 0;
    for (const Box& box : t.boxes) {
      auto region = reference;
      for (std::size_t d = 0; d < box.offset.size(); ++d)
        region = region.narrow(static_cast<std::int64_t>(d), box.offset[d], box.extent[d]);
      const auto own = t.tensor.reshape({-1}).narrow(0, begin, box.elements()).view(region.sizes());
      worst = std::max(worst, (own - region).abs().max().item<double>() / scale);
      begin += box.elements();
    }
  }
  return worst;
}

}  // namespace sinew::test
