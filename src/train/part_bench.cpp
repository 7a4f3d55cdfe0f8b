#include "train/part_bench.hpp"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <list>

#include "base/error.hpp"
#include "model/attention.hpp"
#include "model/balance.hpp"
#include "model/feed_forward.hpp"
#include "model/parameters.hpp"
#include "model/rotary.hpp"
#include "ops/embedding.hpp"
#include "ops/linear_cross_entropy.hpp"
#include "ops/rms_norm.hpp"
#include "ops/tensor.hpp"
#include "train/optimizer.hpp"

namespace sinew {
namespace {

using at::Tensor;
using Tensors = std::vector<Tensor>;
using Forward = std::function<Tensors(const Tensors&)>;

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

constexpr int copies = 3;  // inputs in flight

// One operation over inputs of its own.
class Part {
 public:
  // `shapes`: of the inputs, which get gradients.
  Part(PartSeconds& into, Forward forward, const std::vector<std::vector<std::int64_t>>& shapes,
       at::ScalarType type)
      : sum(into), forward_(std::move(forward)) {
    for (auto& set : inputs_)
      for (const auto& shape : shapes) set.push_back(at::randn(shape).to(type).requires_grad_());
  }

  PartSeconds run() {
    Tensors out[copies];
    const double start = now();
    for (int i = 0; i < copies; ++i) out[i] = forward_(inputs_[i]);
    const double middle = now();
    if (gradients_.empty())
      for (const Tensor& y : out[0]) gradients_.push_back(at::ones_like(y));
    const double again = now();
    for (int i = copies; i-- > 0;) {
      torch::autograd::backward(out[i], gradients_);
      out[i].clear();
    }
    const double end = now();
    for (auto& set : inputs_)
      for (Tensor& x : set) x.mutable_grad().reset();
    return {(middle - start) / copies, (end - again) / copies};
  }

  PartSeconds& sum;

 private:
  Forward forward_;
  Tensors inputs_[copies];
  Tensors gradients_;
};

// A network of one layer, dense or with experts, its gradients kept as the optimizer keeps them.
struct OneLayer {
  ModelConfig config;
  ParameterStore parameters;

  OneLayer(const ModelConfig& whole, bool moe, at::ScalarType type)
      : config(shrunk(whole, moe)), parameters(config, type, at::kCPU) {
    initialize(parameters, config, 1);
    for (const Parameter& p : parameters.list())
      if (!p.buffer) Tensor(p.tensor).mutable_grad() = at::zeros(p.tensor.sizes(), at::kFloat);
  }

  static ModelConfig shrunk(ModelConfig c, bool moe) {
    c.num_hidden_layers = 1;
    c.num_nextn_predict_layers = 0;
    c.moe.first_k_dense_replace = 0;
    c.moe.moe_layer_freq = c.moe.decoder_sparse_step = 1;
    c.moe.mlp_only_layers.clear();
    if (!moe) c.moe.n_routed_experts = 0;
    return c;
  }
};

Forward attention_of(const OneLayer& layer, const ForwardContext& context) {
  const std::shared_ptr<SelfAttention> attention =
      make_attention(layer.config, layer.parameters, 0, "model.layers.0.self_attn.");
  return [=](const Tensors& in) { return Tensors{attention->forward(in[0], context)}; };
}

Forward feed_forward_of(const OneLayer& layer, const ForwardContext& context) {
  const std::shared_ptr<FeedForward> network =
      make_feed_forward(layer.config, layer.parameters, 0, "model.layers.0.");
  if (layer.config.moe.n_routed_experts == 0)
    return [=](const Tensors& in) {
      RouterStats nothing;
      return Tensors{network->forward(in[0], context, nothing)};
    };
  BalanceOptions balance;
  balance.expert_alpha = layer.config.moe.aux_loss_alpha;
  return [=, config = layer.config](const Tensors& in) {
    RouterStats stats;
    Tensors out{network->forward(in[0], context, stats)};
    const auto losses = balance_losses({stats}, balance, config);
    (void)router_load(stats);
    if (losses.balance.defined()) out.push_back(losses.balance);
    return out;
  };
}

// A layer but for its two parts: x -> norm, the sum with what attention made and its norm, the last sum.
Forward norms_of(const OneLayer& layer) {
  const auto first = layer.parameters.get("model.layers.0.input_layernorm.weight"),
             second = layer.parameters.get("model.layers.0.post_attention_layernorm.weight");
  const double eps = layer.config.rms_norm_eps;
  return [=](const Tensors& in) {
    const auto added = add_rms_norm(in[0], rms_norm(in[0], first, eps), second, eps);
    return Tensors{added.sum + added.normed};
  };
}

Forward head_of(const OneLayer& layer, std::int64_t tokens) {
  const auto norm = layer.parameters.get("model.norm.weight");
  const auto head =
      layer.parameters.get(layer.config.tie_word_embeddings ? "model.embed_tokens.weight" : "lm_head.weight");
  const auto targets = at::randint(0, layer.config.vocab_size, {tokens}, at::kLong);
  const double eps = layer.config.rms_norm_eps, count = static_cast<double>(tokens);
  return [=](const Tensors& in) {
    const auto x = rms_norm(in[0], norm, eps);
    return Tensors{linear_cross_entropy(x.reshape({-1, x.size(-1)}), head, targets) / count};
  };
}

Forward embedding_of(const OneLayer& layer, std::int64_t rows, std::int64_t tokens) {
  const auto weight = layer.parameters.get("model.embed_tokens.weight");
  const auto ids = at::randint(0, layer.config.vocab_size, {rows, tokens}, at::kLong);
  return [=](const Tensors&) { return Tensors{embed(weight, ids)}; };
}

// All but the first tokens and all but the last ones, normed and side by side through eh_proj.
Forward mtp_join_of(const OneLayer& layer, at::ScalarType type) {
  const auto norm = layer.parameters.get("model.norm.weight");
  const auto hidden = layer.config.hidden_size;
  const auto weight = (at::randn({hidden, 2 * hidden}) * 0.02).to(type).requires_grad_();
  weight.mutable_grad() = at::zeros(weight.sizes(), at::kFloat);
  const double eps = layer.config.rms_norm_eps;
  return [=](const Tensors& in) {
    const auto length = std::max<std::int64_t>(1, in[0].size(1) - 1);
    const auto later = in[0].narrow(1, in[0].size(1) - length, length), now = in[1].narrow(1, 0, length);
    const auto joined = at::cat({rms_norm(later, norm, eps), rms_norm(now, norm, eps)}, -1);
    return Tensors{project(joined, weight)};
  };
}

// The update of every tensor of a model, or of as many as fit into a number of elements, scaled.
class UpdateBench {
 public:
  UpdateBench(const ModelConfig& config, at::ScalarType type, const RunConfig::Optimizer& options) {
    constexpr double most = 1 << 26;
    std::vector<Parameter> parameters;
    double taken = 0, all = 0;
    for (const TensorSpec& spec : tensor_specs(config)) {
      if (spec.buffer) continue;
      double elements = 1;
      for (const auto d : spec.shape) elements *= static_cast<double>(d);
      all += elements;
      if (taken > 0 && taken + elements > most) continue;
      taken += elements;
      parameters.push_back({spec.name, at::zeros(spec.shape, type).requires_grad_(), false});
    }
    scale_ = all / taken;
    optimizer_ = std::make_unique<Optimizer>(parameters, options);
  }

  double run() {
    const double start = now();
    const double norm = optimizer_->gradient_norm();
    optimizer_->step(1e-4, norm > 1 ? 1 / norm : 1);
    optimizer_->zero_gradients();
    return (now() - start) * scale_;
  }

 private:
  double scale_ = 1;
  std::unique_ptr<Optimizer> optimizer_;
};

}  // namespace

struct PartBench::Impl {
  StepParts sums;
  int rounds = -1;
  std::unique_ptr<OneLayer> dense, moe;
  std::list<Part> parts;
  UpdateBench update;

  Impl(const ModelConfig& config, const PartShape& shape, const RunConfig::Optimizer& optimizer)
      : update(config, shape.type, optimizer) {
    bool has_dense = false;
    for (std::int64_t l = 0; l < config.num_hidden_layers; ++l)
      has_dense = has_dense || config.ffn_kind(l) == FfnKind::dense;
    if (has_dense) dense = std::make_unique<OneLayer>(config, false, shape.type);
    if (config.moe.n_routed_experts > 0) moe = std::make_unique<OneLayer>(config, true, shape.type);
    const OneLayer& layer = moe ? *moe : *dense;
    const auto table = rotary_table(config, shape.tokens, wide_type(shape.type), at::kCPU);
    ForwardContext context;
    context.cos = table.cos;
    context.sin = table.sin;
    context.training = true;
    const std::vector<std::int64_t> x{shape.rows, shape.tokens, config.hidden_size};
    const auto add = [&](PartSeconds& into, const Forward& forward,
                         const std::vector<std::vector<std::int64_t>>& inputs) {
      parts.emplace_back(into, forward, inputs, shape.type);
    };
    add(sums.attention, attention_of(layer, context), {x});
    add(sums.norms, norms_of(layer), {x});
    if (dense) add(sums.dense, feed_forward_of(*dense, context), {x});
    if (moe) add(sums.moe, feed_forward_of(*moe, context), {x});
    add(sums.head, head_of(layer, shape.rows * shape.tokens), {x});
    add(sums.embedding, embedding_of(layer, shape.rows, shape.tokens), {});
    if (config.num_nextn_predict_layers > 0) add(sums.mtp_join, mtp_join_of(layer, shape.type), {x, x});
  }

  void round() {
    const bool counts = rounds++ >= 0;
    for (Part& part : parts) {
      const PartSeconds s = part.run();
      if (!counts) continue;
      part.sum.forward += s.forward;
      part.sum.backward += s.backward;
    }
    const double s = update.run();
    if (counts) sums.update += s;
  }
};

PartBench::PartBench(const ModelConfig& config, const PartShape& shape,
                     const RunConfig::Optimizer& optimizer) {
  require(shape.rows > 0 && shape.tokens > 0, "a shape of {} rows of {} tokens", shape.rows, shape.tokens);
  at::manual_seed(1);
  impl_ = std::make_unique<Impl>(config, shape, optimizer);
}
PartBench::~PartBench() = default;
void PartBench::round() { impl_->round(); }

StepParts PartBench::mean() const {
  StepParts parts = impl_->sums;
  const double rounds = std::max(1, impl_->rounds);
  for (PartSeconds* p : {&parts.attention, &parts.norms, &parts.dense, &parts.moe, &parts.head,
                         &parts.embedding, &parts.mtp_join}) {
    p->forward /= rounds;
    p->backward /= rounds;
  }
  parts.update /= rounds;
  return parts;
}

StepParts bench_parts(const ModelConfig& config, const PartShape& shape,
                      const RunConfig::Optimizer& optimizer, double seconds) {
  PartBench bench(config, shape, optimizer);
  const double begin = now();
  bench.round();
  do bench.round();
  while (now() - begin < seconds);
  return bench.mean();
}

}  // namespace sinew
