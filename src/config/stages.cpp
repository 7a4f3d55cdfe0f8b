#include "config/stages.hpp"

#include <algorithm>
#include <limits>
#include <string_view>

#include "base/error.hpp"
#include "config/tensor_names.hpp"

namespace sinew {
namespace {

constexpr std::string_view kEmbedding = "model.embed_tokens.weight";

double elements(const TensorSpec& spec) {
  double count = 1;
  for (const auto size : spec.shape) count *= static_cast<double>(size);
  return count;
}

// Costs of stages that are runs of layers, with the embedding in the first and the head in the last.
class Runs {
 public:
  explicit Runs(const LayerCosts& costs) : costs_(costs), sums_{0} {
    for (const double cost : costs.layers) sums_.push_back(sums_.back() + cost);
  }
  std::size_t layers() const { return costs_.layers.size(); }
  double cost(std::size_t begin, std::size_t end, bool last) const {
    return sums_[end] - sums_[begin] + (begin == 0 ? costs_.embedding : 0) + (last ? costs_.head : 0);
  }

 private:
  const LayerCosts& costs_;
  std::vector<double> sums_;
};

// Where each of `stages` runs begins (and the end): of all cuts the one whose largest cost is least, or,
// given that bound, the one with the least sum of squares.
std::vector<std::size_t> cut(const Runs& runs, std::size_t stages, std::optional<double> bound) {
  constexpr double kNever = std::numeric_limits<double>::infinity();
  const std::size_t layers = runs.layers();
  // best[s][e]: stages 0..s cover layers 0..e.
  std::vector<std::vector<double>> best(stages, std::vector<double>(layers + 1, kNever));
  std::vector<std::vector<std::size_t>> from(stages, std::vector<std::size_t>(layers + 1, 0));
  for (std::size_t s = 0; s < stages; ++s) {
    const bool last = s + 1 == stages;
    for (std::size_t end = last ? layers : s + 1; end <= layers; ++end) {
      if (!last && end == layers && s + 2 < stages) break;  // the stages between need a layer each
      for (std::size_t begin = s; begin <= end; ++begin) {
        if (begin == end && !(last && s > 0)) continue;
        if ((s == 0) != (begin == 0)) continue;
        const double before = s == 0 ? 0 : best[s - 1][begin], own = runs.cost(begin, end, last);
        if (before == kNever || (bound && own > *bound)) continue;
        const double value = bound ? before + own * own : std::max(before, own);
        if (value < best[s][end]) {
          best[s][end] = value;
          from[s][end] = begin;
        }
      }
    }
  }
  std::vector<std::size_t> places{layers};
  for (std::size_t s = stages; s-- > 0;) places.insert(places.begin(), from[s][places.front()]);
  return places;
}

double largest(const Runs& runs, const std::vector<std::size_t>& places) {
  double most = 0;
  for (std::size_t s = 0; s + 1 < places.size(); ++s)
    most = std::max(most, runs.cost(places[s], places[s + 1], s + 2 == places.size()));
  return most;
}

}  // namespace

LayerCosts layer_costs(const ModelConfig& config, std::int64_t sequence) {
  const auto hidden = config.num_hidden_layers, all = hidden + config.num_nextn_predict_layers;
  const auto& moe = config.moe;
  const double attention = 3.0 * static_cast<double>(config.num_attention_heads) *
                           static_cast<double>(config.qk_head_dim() + config.value_head_dim()) *
                           static_cast<double>(sequence);
  const double idle =
      3.0 *
      static_cast<double>((moe.n_routed_experts - moe.num_experts_per_tok) * moe.moe_intermediate_size) *
      static_cast<double>(config.hidden_size);
  std::vector<double> layers(static_cast<std::size_t>(all), attention);
  for (const TensorSpec& spec : tensor_specs(config)) {
    const auto layer = layer_of(spec.name);
    if (layer && spec.shape.size() == 2) layers[static_cast<std::size_t>(*layer)] += 6 * elements(spec);
  }
  for (std::int64_t l = 0; l < all; ++l)
    if (config.ffn_kind(l) == FfnKind::moe) layers[static_cast<std::size_t>(l)] -= 6 * idle;
  LayerCosts costs;
  costs.head = 6.0 * static_cast<double>(1 + config.num_nextn_predict_layers) *
               static_cast<double>(config.vocab_size) * static_cast<double>(config.hidden_size);
  for (auto l = hidden; l < all; ++l) costs.head += layers[static_cast<std::size_t>(l)];
  layers.resize(static_cast<std::size_t>(hidden));
  costs.layers = std::move(layers);
  return costs;
}

std::vector<StagePart> balanced_stages(const ModelConfig& config, std::int64_t stages,
                                       std::int64_t sequence) {
  require(stages >= 1 && stages <= config.num_hidden_layers,
          "{} pipeline stages for {} layers: every stage needs a layer, so use at most {} (pipeline ranks x "
          "chunks)",
          stages, config.num_hidden_layers, config.num_hidden_layers);
  const LayerCosts costs = layer_costs(config, sequence);
  const Runs runs(costs);
  const auto count = static_cast<std::size_t>(stages);
  // The sums of the second search are taken in another order: leave room for rounding.
  const double bound = largest(runs, cut(runs, count, {})) * (1 + 1e-12);
  const auto places = cut(runs, count, bound);
  std::vector<StagePart> parts;
  for (std::size_t s = 0; s < count; ++s)
    parts.push_back({static_cast<std::int64_t>(places[s]), static_cast<std::int64_t>(places[s + 1]), s == 0,
                     s + 1 == count});
  return parts;
}

bool stage_holds_embedding(const ModelConfig& config, const StagePart& part) {
  const bool again = config.tie_word_embeddings || config.num_nextn_predict_layers > 0;
  return part.embedding || (part.head && again);
}

bool stage_holds(const ModelConfig& config, const StagePart& part, const TensorSpec& spec) {
  if (const auto layer = layer_of(spec.name))
    return *layer >= config.num_hidden_layers ? part.head : *layer >= part.first && *layer < part.end;
  return spec.name == kEmbedding ? stage_holds_embedding(config, part) : part.head;
}

}  // namespace sinew
