#include "compress/collector.hpp"

#include <algorithm>
#include <cmath>

#include "base/index.hpp"
#include "base/team.hpp"
#include "kernels/workspace.hpp"

namespace sinew::compress {
void InputMoments::add(const float* x, index_t ld, index_t count) {
  const auto cols = static_cast<index_t>(squares.size());
  for (index_t t = 0; t < count; ++t)
    for (index_t c = 0; c < cols; ++c) squares[size(c)] += static_cast<double>(x[t * ld + c]) * x[t * ld + c];
  tokens += static_cast<double>(count);
}

std::vector<float> InputMoments::averages() const {
  std::vector<float> out(squares.size(), 1.F);
  if (tokens <= 0) return out;
  for (std::size_t i = 0; i < squares.size(); ++i) out[i] = static_cast<float>(squares[i] / tokens);
  return out;
}

Collector::Collector(const LayerUnits& units, Layer& layer, const std::vector<std::size_t>& hessians) {
  for (const UnitInput& input : units.inputs)
    moments_.push_back({0, std::vector<double>(size(input.cols), 0.0)});
  for (const std::size_t input : hessians) hessians_.emplace(input, Hessian(units.inputs[input].cols));
  std::vector<bool> seen(units.inputs.size(), false);
  for (const Unit& unit : units.units) {
    if (seen[unit.input]) continue;
    seen[unit.input] = true;
    inputs_.emplace(&unit.slot(layer), unit.input);
  }
}

void Collector::add(std::size_t input, const float* x, index_t ld, index_t count) {
  moments_[input].add(x, ld, count);
  const auto found = hessians_.find(input);
  if (found != hessians_.end()) found->second.add(x, ld, count);
}

void Collector::product(const WeightMatrix& w, const engine::Activations& x) {
  const auto found = inputs_.find(&w);
  if (found != inputs_.end()) add(found->second, x.x, x.ld, x.tokens);
}

void Collector::network(const engine::ExpertWork& work, const engine::Activations& x) {
  const auto in = inputs_.find(&work.weights->gate), act = inputs_.find(&work.weights->down);
  if ((in == inputs_.end() && act == inputs_.end()) || work.count == 0) return;
  const index_t hidden = x.cols, width = work.weights->gate.rows;
  Workspace::Frame frame(thread_workspace());
  float* const rows = engine::take_rows(frame, work.count, hidden);
  float* const gate = engine::take_rows(frame, work.count, width);
  float* const up = engine::take_rows(frame, work.count, width);
  for (index_t i = 0; i < work.count; ++i)
    std::copy_n(x.x + (work.tokens != nullptr ? work.tokens[i] : i) * x.ld, hidden, rows + i * hidden);
  const engine::Product products[] = {{&work.weights->gate, gate, width, nullptr},
                                      {&work.weights->up, up, width, nullptr}};
  engine::linear({rows, hidden, work.count, hidden}, products);
  parallel_tasks(work.count, [&](index_t i) {
    const float factor = work.factor != nullptr ? work.factor[i] : 1.F;
    for (index_t c = 0; c < width; ++c) {
      float& g = gate[i * width + c];
      g = factor * (g / (1 + std::exp(-g)) * up[i * width + c]);
    }
    for (index_t c = 0; c < hidden; ++c) rows[i * hidden + c] *= factor;
  });
  if (in != inputs_.end()) add(in->second, rows, hidden, work.count);
  if (act != inputs_.end()) add(act->second, gate, width, work.count);
}

}  // namespace sinew::compress
