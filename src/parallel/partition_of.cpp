#include "parallel/partition_of.hpp"

#include <algorithm>

#include "config/stages.hpp"
#include "parallel/sharding.hpp"

namespace sinew {

Schedule schedule_of(const Layout& layout, std::size_t micro_batches) {
  return make_schedule(parse_schedule_kind(layout.schedule), static_cast<int>(layout.pipeline),
                       static_cast<int>(micro_batches), static_cast<int>(layout.chunks_per_rank()));
}

std::vector<std::vector<StagePart>> pipeline_chunks(const Layout& layout, const ModelConfig& config,
                                                    std::int64_t sequence) {
  const auto ranks = static_cast<int>(layout.pipeline);
  const auto stages = balanced_stages(config, layout.stages(), sequence);
  const auto schedule = schedule_of(layout, 1);
  std::vector<std::vector<StagePart>> out(static_cast<std::size_t>(ranks));
  for (int rank = 0; rank < ranks; ++rank) {
    for (int chunk = 0; chunk < schedule.chunks; ++chunk) {
      const auto stage = static_cast<std::size_t>(schedule.stage_of(rank, chunk));
      out[static_cast<std::size_t>(rank)].push_back(stages.at(stage));
    }
  }
  return out;
}

std::vector<int> embedding_stages(const std::vector<std::vector<StagePart>>& chunks,
                                  const ModelConfig& config) {
  std::vector<int> ranks;
  for (std::size_t rank = 0; rank < chunks.size(); ++rank)
    if (std::any_of(chunks[rank].begin(), chunks[rank].end(),
                    [&](const StagePart& part) { return stage_holds_embedding(config, part); }))
      ranks.push_back(static_cast<int>(rank));
  return ranks;
}

Partition partition_of(const std::shared_ptr<Mesh>& mesh, const ModelConfig& config, std::int64_t sequence) {
  const Layout& layout = mesh->layout();
  const auto chunks = pipeline_chunks(layout, config, sequence);
  const int place = mesh->position(Axis::pipeline), stage_size = static_cast<int>(layout.stage_size());
  Partition p;
  p.chunks = chunks[static_cast<std::size_t>(place)];
  p.tensor = mesh->group(Axis::tensor);
  p.context = mesh->group(Axis::context);
  p.row = mesh->row();
  p.batch = mesh->batch();
  p.expert = mesh->expert();
  if (layout.node_limit > 0) {
    p.expert_in_node = mesh->expert_in_node();
    p.expert_across_nodes = mesh->expert_across_nodes();
  }
  p.fp8_dispatch = layout.dispatch == "fp8";
  std::vector<int> ranks;
  const auto holders = embedding_stages(chunks, config);
  if (std::find(holders.begin(), holders.end(), place) != holders.end())
    for (const int stage : holders) ranks.push_back(stage * stage_size + mesh->rank() % stage_size);
  p.hooks = std::make_shared<Sharding>(mesh, ranks);
  return p;
}

}  // namespace sinew
