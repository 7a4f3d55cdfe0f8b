// The bytes that the trainer keeps on each process: counted tensor by tensor, not estimated.
#pragma once

#include <cstdint>

#include "config/layout.hpp"
#include "config/model_config.hpp"

namespace sinew::plan {

// Where a process stands in the mesh; `shard` and `data`: its places on those axes.
struct Place {
  std::int64_t pipeline = 0, tensor = 0, expert = 0, shard = 0, data = 0;
};

struct TrainerState {
  std::int64_t parameters = 0;  // elements of the tensors (or boxes of them) it computes with
  std::int64_t buffers = 0;     // elements that are kept but not trained
  std::int64_t weights = 0, gradients = 0, optimizer = 0;  // bytes; optimizer: fp32 masters and both moments
};

// `layout` as check_layout() returns it; layers are cut as balanced_stages() does for rows of `sequence`
// tokens. State spread over the shard axis is padded to a multiple of the processes, unit by unit
// (model/partition.hpp); gradients are those kept from one micro-batch to the next.
TrainerState trainer_state(const ModelConfig& model, const sinew::Layout& layout, std::int64_t sequence,
                           bool bf16, const Place& place = {});

// Bytes that one process sends in a step for state that is spread or copied, as the trainer's counters have
// them (docs/communication.md): weights gathered, gradients scattered, and gradients summed over copies.
struct StateTraffic {
  std::int64_t gather = 0, scatter = 0, replicas = 0;
  std::int64_t expert_gather = 0, expert_scatter = 0, expert_replicas = 0;
};
// For layouts of the data, shard and expert axes: tensor, context and pipeline 1. `micro_batches` of a step.
StateTraffic state_traffic(const ModelConfig& model, const sinew::Layout& layout, std::int64_t micro_batches,
                           bool bf16, const Place& place = {});

// Bytes that a process sends in one MoE layer and micro-batch, forward and backward, without a node limit:
// `out` assignments of its tokens go to experts of other processes, `in` come from them.
std::int64_t expert_traffic(const ModelConfig& model, const sinew::Layout& layout, std::int64_t out,
                            std::int64_t in, bool bf16);

}  // namespace sinew::plan
