// What goes into each matrix of a layer, gathered while the layer runs: tokens reach an expert as the model
// routes them. An expert's rows count by their routing weights, for so do its errors in the layer's output.
#pragma once

#include <map>
#include <vector>

#include "compress/units.hpp"
#include "quant/hessian.hpp"

namespace sinew::compress {

// Of one input: E[x^2] by column.
struct InputMoments {
  double tokens = 0;
  std::vector<double> squares;  // sums
  void add(const float* x, index_t ld, index_t count);
  std::vector<float> averages() const;  // ones when no token was seen
};

class Collector : public engine::ForwardTap {
 public:
  // Moments of all inputs of `layer`, and second moments of those numbers of inputs that `hessians` lists.
  Collector(const LayerUnits& units, Layer& layer, const std::vector<std::size_t>& hessians);

  void product(const WeightMatrix& w, const engine::Activations& x) override;
  void network(const engine::ExpertWork& work, const engine::Activations& x) override;

  const std::vector<InputMoments>& moments() const { return moments_; }
  // By number of the input; absent where it was not asked for.
  std::map<std::size_t, Hessian>& hessians() { return hessians_; }

 private:
  void add(std::size_t input, const float* x, index_t ld, index_t count);

  std::map<const WeightMatrix*, std::size_t> inputs_;  // of the first matrix that reads them
  std::vector<InputMoments> moments_;
  std::map<std::size_t, Hessian> hessians_;
};

}  // namespace sinew::compress
