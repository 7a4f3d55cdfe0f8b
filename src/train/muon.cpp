#include "train/muon.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

namespace sinew {
namespace {

constexpr std::int64_t kBatchElements = std::int64_t{1} << 24;  // of one batched product

void update_batch(std::span<TrainedTensor* const> batch, const RunConfig::Optimizer& options, double lr,
                  double gradient_scale) {
  std::vector<at::Tensor> directions;
  for (TrainedTensor* t : batch) directions.push_back(muon_direction(*t, options, gradient_scale));
  const at::Tensor orthogonal =
      newton_schulz(at::stack(directions), options.newton_schulz);  // [n, rows, columns]
  for (std::size_t i = 0; i < batch.size(); ++i)
    muon_apply(*batch[i], orthogonal[static_cast<std::int64_t>(i)], orthogonal.size(1), orthogonal.size(2),
               options, lr);
}

}  // namespace

at::Tensor muon_direction(TrainedTensor& t, const RunConfig::Optimizer& options, double gradient_scale) {
  if (!t.gradient.defined()) {
    t.first.mul_(options.momentum);
    return options.nesterov ? t.first * options.momentum : t.first.clone();
  }
  const at::Tensor gradient = gradient_scale == 1 ? t.gradient : t.gradient * gradient_scale;
  t.first.lerp_(gradient, 1 - options.momentum);
  return options.nesterov ? gradient.lerp(t.first, options.momentum) : t.first.clone();
}

void muon_apply(TrainedTensor& t, const at::Tensor& orthogonal, std::int64_t rows, std::int64_t columns,
                const RunConfig::Optimizer& options, double lr) {
  const double size = lr * options.muon_scale * std::sqrt(static_cast<double>(std::max(rows, columns)));
  t.master.mul_(1 - lr * options.weight_decay);
  t.master.sub_(orthogonal, size);
  if (!t.weight.is_same(t.master)) t.weight.copy_(t.master);
}

at::Tensor newton_schulz(const at::Tensor& matrices, std::int64_t iterations) {
  constexpr double a = 3.4445, b = -4.7750, c = 2.0315;
  const bool tall = matrices.size(1) > matrices.size(2);
  at::Tensor x = tall ? matrices.transpose(1, 2) : matrices;  // [n, short, long]
  x = x / (x.flatten(1).norm(2, {1}, true).unsqueeze(2) + 1e-7);
  for (std::int64_t i = 0; i < iterations; ++i) {
    const at::Tensor product = at::bmm(x, x.transpose(1, 2));                    // A
    const at::Tensor polynomial = at::baddbmm(product, product, product, b, c);  // bA + cA^2
    x = at::baddbmm(x, polynomial, x, a, 1);
  }
  return tall ? x.transpose(1, 2) : x;
}

void muon_update(const std::vector<TrainedTensor*>& tensors, const RunConfig::Optimizer& options, double lr,
                 double gradient_scale) {
  std::map<std::pair<std::int64_t, std::int64_t>, std::vector<TrainedTensor*>> by_shape;
  for (TrainedTensor* t : tensors) by_shape[{t->master.size(0), t->master.size(1)}].push_back(t);
  for (auto& [shape, group] : by_shape) {
    const auto most =
        static_cast<std::size_t>(std::max<std::int64_t>(1, kBatchElements / (shape.first * shape.second)));
    for (std::size_t first = 0; first < group.size(); first += most)
      update_batch(std::span(group).subspan(first, std::min(most, group.size() - first)), options, lr,
                   gradient_scale);
  }
}

}  // namespace sinew
