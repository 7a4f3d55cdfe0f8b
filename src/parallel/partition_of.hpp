// The partition of a network that a place in the mesh stands for.
#pragma once

#include <memory>
#include <vector>

#include "comm/mesh.hpp"
#include "model/partition.hpp"
#include "schedule/schedule.hpp"

namespace sinew {

// The actions of a step of so many micro-batches.
Schedule schedule_of(const Layout& layout, std::size_t micro_batches);

// What each rank of the pipeline holds: chunks in the order of `chunk` of schedule actions. A pure function.
std::vector<std::vector<StagePart>> pipeline_chunks(const Layout& layout, const ModelConfig& config,
                                                    std::int64_t sequence);

// Ranks of the pipeline that hold the embedding: more than one with a tied head or MTP layers elsewhere.
std::vector<int> embedding_stages(const std::vector<std::vector<StagePart>>& chunks,
                                  const ModelConfig& config);

// This process's part, its groups, and a Sharding as its hooks.
Partition partition_of(const std::shared_ptr<Mesh>& mesh, const ModelConfig& config, std::int64_t sequence);

}  // namespace sinew
