#include "compress/calibrate.hpp"

#include "base/error.hpp"
#include "base/index.hpp"
#include "base/progress.hpp"
#include "base/signals.hpp"
#include "compress/collector.hpp"

namespace sinew::compress {
namespace {

void mix_moments(const LayerUnits& units, std::vector<InputMoments>& moments) {
  std::map<int, InputMoments> pools;
  for (std::size_t i = 0; i < moments.size(); ++i) {
    if (units.inputs[i].pool < 0) continue;
    InputMoments& pool = pools[units.inputs[i].pool];
    pool.squares.resize(moments[i].squares.size());
    for (std::size_t c = 0; c < pool.squares.size(); ++c) pool.squares[c] += moments[i].squares[c];
    pool.tokens += moments[i].tokens;
  }
  for (std::size_t i = 0; i < moments.size(); ++i) {
    if (units.inputs[i].pool < 0) continue;
    const InputMoments& pool = pools[units.inputs[i].pool];
    if (pool.tokens <= 0) continue;
    for (std::size_t c = 0; c < pool.squares.size(); ++c)
      moments[i].squares[c] += kPriorTokens * pool.squares[c] / pool.tokens;
    moments[i].tokens += kPriorTokens;
  }
}

// The inputs of the routed experts' gates tell how many tokens came by each.
ExpertVisits visits_of(const LayerUnits& units, const std::vector<InputMoments>& moments, index_t layer,
                       index_t experts) {
  ExpertVisits out{layer, std::vector<double>(size(experts), 0.0)};
  for (const Unit& unit : units.units) {
    if (unit.expert < 0 || units.inputs[unit.input].pool != 0) continue;
    out.tokens[size(unit.expert)] = moments[unit.input].tokens;
  }
  return out;
}

struct HeadTap : engine::ForwardTap {
  InputMoments moments;
  void product(const WeightMatrix&, const engine::Activations& x) override {
    moments.squares.resize(size(x.cols));
    moments.add(x.x, x.ld, x.tokens);
  }
};

}  // namespace

Statistics gather_statistics(const Model& model, const ModelSource& source, const TensorPlaces& places,
                             LayerRunner& runner) {
  Statistics out;
  out.model = model_fingerprint(model.config);
  out.tokens = runner.tokens();
  runner.embed(model.embedding);
  Progress progress("Calibrating", model.layers.size(), "layers");
  for (std::size_t l = 0; l < model.layers.size(); ++l) {
    if (stop_requested() != 0) throw Error("calibration stopped; nothing was written");
    const LayerUnits units = layer_units(source, places, model, static_cast<index_t>(l));
    Layer layer = model.layers[l];
    Collector collector(units, layer, {});
    runner.run(layer, &collector, true);
    std::vector<InputMoments> moments = collector.moments();
    if (layer.moe)
      out.visits.push_back(visits_of(units, moments, static_cast<index_t>(l),
                                     static_cast<index_t>(layer.moe->experts.size())));
    mix_moments(units, moments);
    for (std::size_t i = 0; i < moments.size(); ++i)
      out.moments[units.inputs[i].name] = moments[i].averages();
    progress.update(l + 1);
  }
  HeadTap tap;
  runner.logits(model.final_norm, model.head, &tap, [](index_t, index_t, const float*) {});
  out.moments[kHeadInput] = tap.moments.averages();
  progress.finish();
  return out;
}

void mix_priors(const LayerUnits& units, std::map<std::size_t, Hessian>& hessians) {
  std::map<int, Hessian> pools;
  for (const auto& [input, hessian] : hessians) {
    const int pool = units.inputs[input].pool;
    if (pool < 0) continue;
    Hessian& sum = pools.try_emplace(pool, hessian.cols()).first->second;
    sum.mix(hessian, hessian.tokens());
  }
  for (auto& [input, hessian] : hessians) {
    const int pool = units.inputs[input].pool;
    if (pool >= 0) hessian.mix(pools.at(pool), kPriorTokens);
  }
}

std::vector<RareExpert> rare_experts(const Statistics& statistics) {
  std::vector<RareExpert> out;
  for (const ExpertVisits& visits : statistics.visits)
    for (std::size_t e = 0; e < visits.tokens.size(); ++e)
      if (visits.tokens[e] < kPriorTokens)
        out.push_back({visits.layer, static_cast<std::int64_t>(e), visits.tokens[e]});
  return out;
}

}  // namespace sinew::compress
