// How one model is spread over many processes. A layout says where things are computed, never what.
#pragma once

#include <cstdint>
#include <string>

#include "config/model_config.hpp"

namespace sinew {

// [layout] of a run. Sizes multiply: data x shard x context x tensor x pipeline processes. Experts are laid
// over the data x shard x context x tensor processes of a pipeline stage, however attention lies there.
struct Layout {
  std::int64_t data = 0;     // replicas of everything; 0: whatever is left of the processes
  std::int64_t shard = 1;    // state spread over this many (ZeRO: Rajbhandari et al. 2020; FSDP)
  std::int64_t zero = 3;     // what the shard axis spreads: 1 optimizer state, 2 gradients too, 3 weights too
  std::int64_t tensor = 1;   // heads, feed-forward widths and vocabulary (Shoeybi et al. 2019), with the
                             // sequence cut between them (Korthikanti et al. 2022)
  std::int64_t context = 1;  // the sequence (ring attention, Liu et al. 2023)
  std::int64_t pipeline = 1;
  std::string schedule = "1f1b";   // schedule/schedule.hpp
  std::int64_t chunks = 1;         // stages a process holds, of interleaved; dualpipe-v has 2
  std::int64_t micro_batches = 0;  // a step; 0: as train.micro_batch says
  std::int64_t expert = 1;
  std::int64_t ranks_per_node = 0;  // 0: as the launcher says, else all on one node
  std::int64_t node_limit = 0;  // tokens go once to each of at most this many nodes and are forwarded inside;
                                // 0: to each expert's rank
  std::string dispatch = "exact";  // or "fp8": 1x128 blocks of E4M3 on the way to the experts
  std::int64_t timeout = 600;      // seconds an operation waits for a rank

  std::int64_t replicas() const { return data * shard; }  // that read different rows
  std::int64_t stage_size() const { return data * shard * context * tensor; }
  std::int64_t size() const { return stage_size() * pipeline; }
  std::int64_t chunks_per_rank() const;  // as `schedule` has it
  std::int64_t stages() const { return pipeline * chunks_per_rank(); }
  // Processes that hold parts of one row of a batch.
  std::int64_t row_size() const { return context * tensor; }
  // Replicas of an expert, over how many of them its state is spread, and how many copies remain.
  std::int64_t expert_replicas() const { return stage_size() / expert; }
  std::int64_t expert_shard() const;
  bool operator==(const Layout&) const = default;
};

// What a layout must fit besides the number of processes.
struct LayoutDemands {
  std::int64_t processes = 1;
  std::int64_t batch = 1, micro_batch = 0;  // sequences a step and a micro-batch (of all replicas together)
  std::int64_t sequence = 0;                // tokens
  double capacity_factor = 0;
};

// `layout` with what it leaves open filled in: data, micro_batches, ranks_per_node. Throws UserError: one
// line that says which rule is broken and the nearest valid choice.
Layout check_layout(Layout layout, const LayoutDemands& demands, const ModelConfig& model);

// "data=2 shard=4 zero=3 expert=8": the sizes over 1.
std::string layout_name(const Layout& layout);

// The begin of part `index` of `size` things cut into `parts` as evenly as can be.
constexpr std::int64_t part_begin(std::int64_t size, std::int64_t parts, std::int64_t index) {
  return size * index / parts;
}

}  // namespace sinew
