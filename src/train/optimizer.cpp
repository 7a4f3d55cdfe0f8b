#include "train/optimizer.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "base/error.hpp"
#include "kernels/optimizer.hpp"
#include "ops/fused.hpp"
#include "train/adamw.hpp"
#include "train/muon.hpp"

namespace sinew {
namespace {

// The gradient of a tensor on the CPU into `gradient`, which becomes the leaf's grad().
void settle(TrainedTensor& t) {
  at::Tensor& gradient = t.leaf.mutable_grad();
  const bool elsewhere = gradient.defined() && !gradient.is_same(t.gradient);  // autograd's own sum
  if (elsewhere && !t.fresh)
    t.gradient.add_(gradient);
  else if (elsewhere)
    t.gradient.copy_(gradient);
  else if (!gradient.defined() && t.fresh)
    t.gradient.zero_();
  t.fresh = false;
  gradient = t.gradient;
}

}  // namespace

bool left_to_adamw(const std::string& name, std::size_t dimensions) {
  const auto ends = [&](std::string_view suffix) { return std::string_view(name).ends_with(suffix); };
  return dimensions != 2 || ends("embed_tokens.weight") || ends("lm_head.weight") ||
         ends("shared_head.head.weight") || ends(".gate.weight");
}

Optimizer::Optimizer(std::span<const Parameter> parameters, const RunConfig::Optimizer& options)
    : options_(options), buffers_of_gradients_(std::make_shared<GradientBuffers>()) {
  const at::NoGradGuard no_grad;
  add_buffers(parameters, true);
  for (const auto& p : parameters) {
    if (p.buffer) continue;
    TrainedTensor t;
    t.name = p.name;
    t.leaf = p.tensor;
    t.weight = p.tensor.detach();  // same storage, outside autograd
    ensure(t.weight.is_contiguous(), "{} is not contiguous", p.name);
    t.master = p.tensor.scalar_type() == at::kFloat ? t.weight : t.weight.to(at::kFloat);
    t.first = at::zeros_like(t.master, at::MemoryFormat::Contiguous);
    t.decay = p.tensor.dim() >= 2;
    t.muon = options.kind == "muon" && !left_to_adamw(p.name, static_cast<std::size_t>(p.tensor.dim()));
    if (!t.muon) t.second = at::zeros_like(t.first);
    t.part = p.part;
    if (t.leaf.is_cpu()) {  // backward() writes here, in place and in fp32
      t.gradient = at::zeros(t.leaf.sizes(), at::TensorOptions(at::kFloat));
      t.leaf.mutable_grad().reset();
      buffers_of_gradients_->add(t.leaf, t.gradient);
    }
    tensors_.push_back(std::move(t));
  }
}

Optimizer::Optimizer(std::span<const Parameter> parameters, std::shared_ptr<Sharding> sharding,
                     const RunConfig::Optimizer& options)
    : sharding_(std::move(sharding)), options_(options) {
  const at::NoGradGuard no_grad;
  add_buffers(parameters, sharding_->writes_buffers());
  for (const auto& piece : sharding_->pieces()) {
    const Parameter& p = parameters[piece.parameter];
    TrainedTensor t;
    t.name = p.name;
    t.part = p.part;
    t.begin = piece.begin;
    t.counts = piece.counts;
    const auto dimensions = p.part.shape.size();
    t.decay = dimensions >= 2;
    t.muon = options.kind == "muon" && !left_to_adamw(p.name, dimensions);
    const bool whole = piece.end - piece.begin == p.tensor.numel();
    const auto shape = whole ? p.part.shape : std::vector<std::int64_t>{piece.end - piece.begin};
    t.weight = piece.weight.view(shape);
    t.gradient = piece.gradient.view(shape);
    t.master = t.weight.scalar_type() == at::kFloat ? t.weight : t.weight.to(at::kFloat);
    t.first = at::zeros_like(t.master, at::MemoryFormat::Contiguous);
    if (!t.muon) t.second = at::zeros_like(t.first);
    tensors_.push_back(std::move(t));
  }
}

void Optimizer::add_buffers(std::span<const Parameter> parameters, bool written) {
  for (const auto& p : parameters) {
    if (!p.buffer) continue;
    buffers_.push_back({.name = "weight/" + p.name,
                        .tensor = p.tensor.detach(),
                        .shape = p.part.whole.shape,
                        .boxes = {{.offset = p.part.offset, .extent = p.part.shape}},
                        .written = written});
  }
}

void Optimizer::finish_gradients() {
  if (sharding_) sharding_->reduce_gradients();
}

void Optimizer::accumulate() {
  if (sharding_) return sharding_->end_backward();
  for (auto& t : tensors_) {
    at::Tensor& gradient = t.leaf.mutable_grad();
    if (t.leaf.is_cpu()) {
      settle(t);
      continue;
    }
    if (!gradient.defined() || gradient.is_same(t.gradient)) continue;
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
    if (!t.gradient.defined() || !t.counts) continue;
    if (!t.gradient.is_cpu()) {
      total += std::pow(t.gradient.norm().item<double>(), 2);
      continue;
    }
    AdamWSpan span{};
    span.gradient = t.gradient.data_ptr<float>();
    span.n = t.gradient.numel();
    spans.push_back(span);
  }
  total += sum_of_squares(active_isa(), spans);
  if (sharding_) {
    const auto sum = at::full({1}, total, at::TensorOptions(at::kDouble).device(tensors_[0].weight.device()));
    sharding_->mesh().world()->all_reduce(sum);
    total = sum.item<double>();
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
  if (sharding_ && sharding_->mesh().layout().shard * sharding_->mesh().layout().tensor > 1) {
    muon_of_pieces(lr, gradient_scale);
  } else {
    muon_update(muon, options_, lr, gradient_scale);
  }
  if (sharding_) sharding_->publish_weights();
}

void Optimizer::muon_of_pieces(double lr, double gradient_scale) {
  if (options_.kind != "muon") return;
  std::vector<at::Tensor> directions(tensors_.size());
  for (std::size_t i = 0; i < tensors_.size(); ++i)
    if (tensors_[i].muon) directions[i] = muon_direction(tensors_[i], options_, gradient_scale).reshape({-1});
  const auto wanted = [this](std::size_t parameter) {
    const auto& whole = sharding_->parts()[parameter].whole;
    return !left_to_adamw(whole.name, whole.shape.size());
  };
  sharding_->each_whole(directions, wanted, [&](std::size_t i, const at::Tensor& whole) {
    auto& t = tensors_[i];
    auto box = newton_schulz(whole.unsqueeze(0), options_.newton_schulz)[0];
    for (std::int64_t d = 0; d < 2; ++d) {
      const auto axis = static_cast<std::size_t>(d);
      box = box.narrow(d, t.part.offset[axis], t.part.shape[axis]);
    }
    const auto own = box.reshape({-1}).narrow(0, t.begin, t.master.numel()).view(t.master.sizes());
    muon_apply(t, own, whole.size(0), whole.size(1), options_, lr);
  });
}

void Optimizer::zero_gradients() {
  if (sharding_) return sharding_->zero_gradients();
  for (auto& t : tensors_) {
    if (t.leaf.is_cpu())
      t.fresh = true;
    else
      t.gradient.reset();
    t.leaf.mutable_grad().reset();
  }
}

std::vector<StateTensor> Optimizer::state() const {
  std::vector<StateTensor> state;
  const auto add = [&](const char* kind, const TrainedTensor& t, const at::Tensor& tensor) {
    const Box part{.offset = t.part.offset, .extent = t.part.shape};
    state.push_back({.name = kind + t.name,
                     .tensor = tensor,
                     .shape = t.part.whole.shape,
                     .boxes = boxes_of_run(part, t.begin, t.begin + tensor.numel()),
                     .written = t.counts});
  };
  for (const auto& t : tensors_) add("weight/", t, t.master);
  for (const auto& buffer : buffers_) state.push_back(buffer);
  for (const auto& t : tensors_) {
    add("first/", t, t.first);
    if (t.second.defined()) add("second/", t, t.second);
  }
  return state;
}

void Optimizer::weights_from_masters() {
  const at::NoGradGuard no_grad;
  for (auto& t : tensors_)
    if (!t.weight.is_same(t.master)) t.weight.copy_(t.master);
  if (sharding_) sharding_->publish_weights();
}

}  // namespace sinew
