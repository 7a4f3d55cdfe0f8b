// The bytes that the trainer keeps on each process: counted tensor by tensor, not estimated.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "config/layout.hpp"
#include "config/model_config.hpp"
#include "config/stages.hpp"
#include "schedule/schedule.hpp"

namespace sinew::plan {

// Where a process stands in the mesh (comm/mesh.hpp), and among the experts: its number in its group, and
// its place among the replicas of these experts.
struct Place {
  std::int64_t pipeline = 0, data = 0, shard = 0, context = 0, tensor = 0;
  std::int64_t expert = 0, replica = 0;
};
Place place_of(const sinew::Layout& layout, std::int64_t world_rank);

// One run of tensors that are gathered, spread and summed as one (parallel/sharding.hpp).
enum class Lying { whole, tensor, expert };
struct StateRun {
  std::size_t unit = 0;  // in the order that the process holds them
  std::string name;      // of the unit: config/tensor_names.hpp
  Lying lying = Lying::whole;
  std::int64_t elements = 0;
  std::int64_t joined =
      0;  // elements of its matrices, as members of the tensor group send each other all of them
  std::int64_t members = 1, position = 0;  // processes that share it, and this one's place among them
  std::int64_t piece() const { return (elements + members - 1) / members; }
};

// Groups by the names that the counters have for them. Of those that share a run:
const char* shard_group(const StateRun& run);
// Of those that hold the same piece of it and sum its gradients.
struct StateCopies {
  const char* group;
  std::int64_t members, rank;
};
StateCopies copies_of(const StateRun& run, const sinew::Layout& layout, const Place& place);

// What a process holds of a network. `layout` as check_layout() returns it; layers are cut as
// balanced_stages() does for rows of `sequence` tokens.
struct HeldNetwork {
  std::vector<StagePart> chunks;  // in the order of `chunk` of schedule actions
  std::vector<StateRun> runs;     // by unit
  std::int64_t parameters = 0, buffers = 0;
};
std::vector<StagePart> held_chunks(const ModelConfig& model, const sinew::Layout& layout,
                                   std::int64_t sequence, std::int64_t pipeline);
HeldNetwork held_network(const ModelConfig& model, const sinew::Layout& layout, std::int64_t sequence,
                         const Place& place);

// The actions of a step, without micro-batches under way for a pipeline of one.
Schedule trainer_schedule(const sinew::Layout& layout, std::int64_t micro_batches);

struct TrainerState {
  std::int64_t parameters = 0;  // elements of the tensors (or boxes of them) it computes with
  std::int64_t buffers = 0;     // elements that are kept but not trained
  std::int64_t weights = 0, gradients = 0, optimizer = 0;  // bytes; optimizer: fp32 masters and both moments
};

// State spread over the shard axis is padded to a multiple of the processes, unit by unit
// (model/partition.hpp); gradients are those kept from one micro-batch to the next.
TrainerState trainer_state(const ModelConfig& model, const sinew::Layout& layout, std::int64_t sequence,
                           bool bf16, const Place& place = {});

}  // namespace sinew::plan
