#include "train/optimizer.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "base/error.hpp"
#include "base/threads.hpp"
#include "train/adamw.hpp"
#include "train/muon.hpp"

namespace sinew {
namespace {

constexpr std::int64_t kPiece = 16384;

double sum_of_squares(const at::Tensor& gradient) {
  const auto* const data = gradient.data_ptr<float>();
  const std::int64_t count = gradient.numel(), pieces = (count + kPiece - 1) / kPiece;
  std::vector<double> sums(static_cast<std::size_t>(pieces));
  parallel_for(sums.size(), 1, [&](std::size_t first, std::size_t last) {
    for (std::size_t p = first; p < last; ++p) {
      double lanes[8] = {};  // fixed lanes: the order of the sum is part of the result
      const std::int64_t begin = static_cast<std::int64_t>(p) * kPiece, end = std::min(count, begin + kPiece);
      std::int64_t i = begin;
      for (; i + 8 <= end; i += 8)
        for (int lane = 0; lane < 8; ++lane)
          lanes[lane] += static_cast<double>(data[i + lane]) * static_cast<double>(data[i + lane]);
      for (; i < end; ++i) lanes[0] += static_cast<double>(data[i]) * static_cast<double>(data[i]);
      for (const double lane : lanes) sums[p] += lane;
    }
  });
  double total = 0;
  for (const double sum : sums) total += sum;
  return total;
}

}  // namespace

bool left_to_adamw(const std::string& name, const at::Tensor& weight) {
  const auto ends = [&](std::string_view suffix) { return std::string_view(name).ends_with(suffix); };
  return weight.dim() != 2 || ends("embed_tokens.weight") || ends("lm_head.weight") ||
         ends("shared_head.head.weight") || ends(".gate.weight");
}

Optimizer::Optimizer(std::span<const Parameter> parameters, const RunConfig::Optimizer& options)
    : options_(options) {
  const at::NoGradGuard no_grad;
  for (const auto& p : parameters) {
    if (p.buffer) {
      buffers_.push_back({"weight/" + p.name, p.tensor.detach()});
      continue;
    }
    TrainedTensor t;
    t.name = p.name;
    t.leaf = p.tensor;
    t.weight = p.tensor.detach();  // same storage, outside autograd
    ensure(t.weight.is_contiguous(), "{} is not contiguous", p.name);
    t.master = p.tensor.scalar_type() == at::kFloat ? t.weight : t.weight.to(at::kFloat);
    t.first = at::zeros_like(t.master, at::MemoryFormat::Contiguous);
    t.decay = p.tensor.dim() >= 2;
    t.muon = options.kind == "muon" && !left_to_adamw(p.name, p.tensor);
    if (!t.muon) t.second = at::zeros_like(t.first);
    tensors_.push_back(std::move(t));
  }
}

void Optimizer::accumulate() {
  for (auto& t : tensors_) {
    at::Tensor& gradient = t.leaf.mutable_grad();
    if (!gradient.defined()) continue;
    if (gradient.scalar_type() == at::kFloat) {
      t.gradient = gradient.contiguous();  // autograd itself sums in fp32
      continue;
    }
    if (t.gradient.defined()) {
      t.gradient.add_(gradient);
    } else {
      t.gradient = gradient.to(at::kFloat).contiguous();
    }
    gradient.reset();
  }
}

double Optimizer::gradient_norm() const {
  double total = 0;
  for (const auto& t : tensors_) {
    if (!t.gradient.defined()) continue;
    total += t.gradient.is_cpu() ? sum_of_squares(t.gradient) : std::pow(t.gradient.norm().item<double>(), 2);
  }
  return std::sqrt(total);
}

void Optimizer::step(double lr, double gradient_scale) {
  const at::NoGradGuard no_grad;
  ++updates_;
  std::vector<TrainedTensor*> adamw, muon;
  for (auto& t : tensors_) (t.muon ? muon : adamw).push_back(&t);
  adamw_update(adamw, {.lr = lr,
                       .beta1 = options_.beta1,
                       .beta2 = options_.beta2,
                       .eps = options_.eps,
                       .weight_decay = options_.weight_decay,
                       .gradient_scale = gradient_scale,
                       .update = updates_});
  muon_update(muon, options_, lr, gradient_scale);
}

void Optimizer::zero_gradients() {
  for (auto& t : tensors_) {
    t.gradient.reset();
    t.leaf.mutable_grad().reset();
  }
}

std::vector<StateTensor> Optimizer::state() const {
  std::vector<StateTensor> state;
  for (const auto& t : tensors_) state.push_back({"weight/" + t.name, t.master});
  for (const auto& buffer : buffers_) state.push_back(buffer);
  for (const auto& t : tensors_) {
    state.push_back({"first/" + t.name, t.first});
    if (t.second.defined()) state.push_back({"second/" + t.name, t.second});
  }
  return state;
}

void Optimizer::weights_from_masters() {
  const at::NoGradGuard no_grad;
  for (auto& t : tensors_)
    if (!t.weight.is_same(t.master)) t.weight.copy_(t.master);
}

}  // namespace sinew
