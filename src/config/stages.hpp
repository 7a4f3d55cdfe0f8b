// Cutting a network into pipeline stages of equal cost.
#pragma once

#include <cstdint>
#include <vector>

#include "config/model_config.hpp"

namespace sinew {

// What one stage computes: layers [first, end), the embedding before them, and after them the final norm, the
// head and the multi-token-prediction layers.
struct StagePart {
  std::int64_t first = 0, end = 0;
  bool embedding = true, head = true;
  bool operator==(const StagePart&) const = default;
};

// Training FLOPs a token of each piece: 6 x active matrix parameters and causal attention, as
// train_flops_per_token() counts them; the pieces sum to that.
struct LayerCosts {
  std::vector<double> layers;  // [num_hidden_layers]
  double embedding = 0;        // a look-up
  double head = 0;             // with every multi-token-prediction layer
};
LayerCosts layer_costs(const ModelConfig& config, std::int64_t sequence);

// `stages` runs of layers in order whose most costly one costs as little as can be, and of those the most
// even ones. Every stage has a layer, but the last may hold the head alone where that balances. Throws
// UserError for more stages than layers.
std::vector<StagePart> balanced_stages(const ModelConfig& config, std::int64_t stages, std::int64_t sequence);

// Whether the stage needs a tensor of tensor_specs(). The embedding is needed by its own stage, by a tied
// head and by multi-token prediction, so that two stages may hold it: their gradients have to be summed.
bool stage_holds_embedding(const ModelConfig& config, const StagePart& part);
bool stage_holds(const ModelConfig& config, const StagePart& part, const TensorSpec& spec);

}  // namespace sinew
