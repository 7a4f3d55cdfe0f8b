#include "train/optimizer.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/error.hpp"
#include "kernels/optimizer.hpp"
#include "train/adamw.hpp"
#include "train/muon.hpp"

namespace sinew {
namespace {

// Where backward() is to add gradients in place and in fp32 (ops/fused.hpp), for the life of the optimizer.
void prepare_gradient(TrainedTensor& t) {
  if (!t.leaf.is_cpu()) return;
  t.gradient = at::zeros(t.leaf.sizes(), at::TensorOptions(at::kFloat));
  t.leaf.mutable_grad() = t.gradient;
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
    prepare_gradient(t);
    tensors_.push_back(std::move(t));
  }
}

void Optimizer::accumulate() {
  for (auto& t : tensors_) {
    at::Tensor& gradient = t.leaf.mutable_grad();
    if (!gradient.defined() || gradient.is_same(t.gradient)) continue;
    if (gradient.is_cpu()) {  // somebody put another tensor there
      t.gradient.add_(gradient);
      gradient = t.gradient;
      continue;
    }
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
  std::vector<AdamWSpan> spans;
  for (const auto& t : tensors_) {
    if (!t.gradient.defined()) continue;
    if (!t.gradient.is_cpu()) {
      total += std::pow(t.gradient.norm().item<double>(), 2);
      continue;
    }
    AdamWSpan span{};
    span.gradient = t.gradient.data_ptr<float>();
    span.n = t.gradient.numel();
    spans.push_back(span);
  }
  return std::sqrt(total + sum_of_squares(active_isa(), spans));
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
  adamw_zeroed_ = true;
  muon_update(muon, options_, lr, gradient_scale);
}

void Optimizer::zero_gradients() {
  const bool already = std::exchange(adamw_zeroed_, false);
  for (auto& t : tensors_) {
    if (!t.leaf.is_cpu()) {
      t.gradient.reset();
      t.leaf.mutable_grad().reset();
      continue;
    }
    if (t.muon || !already) t.gradient.zero_();
    t.leaf.mutable_grad() = t.gradient;
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
