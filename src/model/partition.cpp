#include "model/partition.hpp"

#include <algorithm>
#include <optional>

#include "base/error.hpp"
#include "config/layout.hpp"
#include "config/tensor_names.hpp"

namespace sinew {
namespace {

class Chooser {
 public:
  Chooser(const ModelConfig& config, const Partition& partition)
      : config_(config), partition_(partition), chunks_(chunks_of(partition, config)) {}

  bool holds(const TensorSpec& spec) const {
    return std::any_of(chunks_.begin(), chunks_.end(),
                       [&](const StagePart& chunk) { return stage_holds(config_, chunk, spec); });
  }

  // Empty where another member of the group holds it.
  std::optional<PartSpec> part(const TensorSpec& spec) const {
    PartSpec out{.whole = spec,
                 .offset = std::vector<std::int64_t>(spec.shape.size(), 0),
                 .shape = spec.shape,
                 .spread = Spread::whole,
                 .unit = 0};
    if (const auto expert = expert_of(spec.name)) {
      out.spread = Spread::expert;
      const auto size = size_of(partition_.expert), rank = rank_of(partition_.expert);
      const auto each = config_.moe.n_routed_experts / size;
      if (*expert / each != rank) return {};
    } else if (const auto dimension = tensor_cut(spec.name); dimension && size_of(partition_.tensor) > 1) {
      out.spread = Spread::tensor;
      const auto size = size_of(partition_.tensor), rank = rank_of(partition_.tensor);
      const auto all = spec.shape[*dimension];
      out.offset[*dimension] = part_begin(all, size, rank);
      out.shape[*dimension] = part_begin(all, size, rank + 1) - out.offset[*dimension];
    }
    return out;
  }

 private:
  const ModelConfig& config_;
  const Partition& partition_;
  std::vector<StagePart> chunks_;
};

}  // namespace

std::vector<StagePart> chunks_of(const Partition& partition, const ModelConfig& config) {
  if (!partition.chunks.empty()) return partition.chunks;
  return {{.first = 0, .end = config.num_hidden_layers}};
}

std::vector<PartSpec> part_specs(const ModelConfig& config, const Partition& partition) {
  const Chooser chooser(config, partition);
  std::vector<PartSpec> parts;
  std::string unit;
  for (const auto& spec : tensor_specs(config)) {
    if (!chooser.holds(spec)) continue;
    auto part = chooser.part(spec);
    if (!part) continue;
    const auto key = unit_name(spec.name);
    if (parts.empty()) {
      part->unit = 0;
    } else {
      part->unit = parts.back().unit + (key == unit ? 0 : 1);
    }
    unit = key;
    parts.push_back(std::move(*part));
  }
  return parts;
}

}  // namespace sinew
