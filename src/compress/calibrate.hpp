// Calibration on text: what the inputs of every matrix look like, and what each format would cost it.
#pragma once

#include "compress/layer_runner.hpp"
#include "compress/statistics.hpp"
#include "compress/units.hpp"
#include "quant/hessian.hpp"

namespace sinew::compress {

// Experts that fewer tokens than this came by lean on the average of their layer's experts, which counts as
// this many tokens beside their own.
inline constexpr double kPriorTokens = 64;

// Moments of every unit's input, priors mixed in, and the visits of every expert.
Statistics gather_statistics(const Model& model, const ModelSource& source, const TensorPlaces& places,
                             LayerRunner& runner);

// Mixes the average of each pool of inputs into its members.
void mix_priors(const LayerUnits& units, std::map<std::size_t, Hessian>& hessians);

// Experts of a layer that fewer than kPriorTokens tokens came by.
struct RareExpert {
  std::int64_t layer, expert;
  double tokens;
};
std::vector<RareExpert> rare_experts(const Statistics& statistics);

// The name under which the inputs of embedding and head stand in the statistics.
inline constexpr const char* kHeadInput = "lm_head.weight";

}  // namespace sinew::compress
