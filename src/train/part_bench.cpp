#include "train/part_bench.hpp"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <functional>
#include <list>

#include "base/clock.hpp"
#include "base/error.hpp"
#include "model/attention.hpp"
#include "model/balance.hpp"
#include "model/feed_forward.hpp"
#include "model/parameters.hpp"
#include "model/rotary.hpp"
#include "ops/residual.hpp"
#include "ops/rms_norm.hpp"
#include "ops/sequence_parallel.hpp"
#include "ops/tensor.hpp"
#include "ops/weight_work.hpp"
#include "parallel/partition_of.hpp"
#include "train/optimizer.hpp"

namespace sinew {
namespace {

using at::Tensor;
using Tensors = std::vector<Tensor>;
using Forward = std::function<Tensors(const Tensors&)>;

constexpr int copies = 3;  // inputs in flight

// One operation over inputs of its own.
class Part {
 public:
  // `shapes`: of the inputs, which get gradients. `split`: backward passes leave the weights for later.
  Part(PartSeconds& into, Forward forward, const std::vector<std::vector<std::int64_t>>& shapes,
       at::ScalarType type, bool split)
      : sum(into), forward_(std::move(forward)), split_(split) {
    for (auto& set : inputs_)
      for (const auto& shape : shapes) set.push_back(at::randn(shape).to(type).requires_grad_());
  }

  PartSeconds run() {
    Tensors out[copies];
    WeightWork later[copies];
    const double start = clock_seconds();
    for (int i = 0; i < copies; ++i) out[i] = forward_(inputs_[i]);
    const double middle = clock_seconds();
    if (gradients_.empty())
      for (const Tensor& y : out[0]) gradients_.push_back(at::ones_like(y));
    const double again = clock_seconds();
    for (int i = copies; i-- > 0;) {
      backward(out[i], later[i]);
      out[i].clear();
    }
    const double half = clock_seconds();
    for (WeightWork& work : later) work.run();
    const double end = clock_seconds();
    for (auto& set : inputs_)
      for (Tensor& x : set) x.mutable_grad().reset();
    return {(middle - start) / copies, (end - again) / copies, split_ ? (end - half) / copies : 0};
  }

  PartSeconds& sum;

 private:
  void backward(const Tensors& out, WeightWork& later) const {
    if (!split_) return torch::autograd::backward(out, gradients_);
    const LeaveWeights scope(later);
    torch::autograd::backward(out, gradients_);
  }

  Forward forward_;
  bool split_;
  Tensors inputs_[copies];
  Tensors gradients_;
};

// A network of one layer, dense or with experts, its gradients kept as the optimizer keeps them.
struct OneLayer {
  ModelConfig config;
  ParameterStore parameters;

  OneLayer(const ModelConfig& whole, bool moe, at::ScalarType type, const Partition& partition)
      : config(shrunk(whole, moe)), parameters(config, type, at::kCPU, partition) {
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
  const Partition& partition() const { return parameters.partition(); }
  // The first row of the vocabulary that this process holds.
  std::int64_t vocabulary_first() const {
    return part_begin(config.vocab_size, size_of(partition().tensor), rank_of(partition().tensor));
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
  return [=, config = layer.config, partition = layer.partition()](const Tensors& in) {
    RouterStats stats;
    Tensors out{network->forward(in[0], context, stats)};
    JointSums joint;
    const auto losses = balance_losses({stats}, balance, config, joint, partition);
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
    const auto before = rms_norm_beside(in[0], first, eps);
    const auto after = add_rms_norm(before.sum, before.normed, second, eps);
    return Tensors{add_residual(after.sum, after.normed)};
  };
}

Forward head_of(const OneLayer& layer, std::int64_t rows, std::int64_t tokens) {
  const auto norm = layer.parameters.get("model.norm.weight");
  const auto head =
      layer.parameters.get(layer.config.tie_word_embeddings ? "model.embed_tokens.weight" : "lm_head.weight");
  const auto targets = at::randint(0, layer.config.vocab_size, {rows, tokens}, at::kLong);
  const double eps = layer.config.rms_norm_eps, count = static_cast<double>(rows * tokens);
  return [=, first = layer.vocabulary_first(), group = layer.partition().tensor](const Tensors& in) {
    return Tensors{vocabulary_cross_entropy(rms_norm(in[0], norm, eps), head, first, targets, group) / count};
  };
}

Forward embedding_of(const OneLayer& layer, std::int64_t rows, std::int64_t tokens) {
  const auto weight = layer.parameters.get("model.embed_tokens.weight");
  const auto ids = at::randint(0, layer.config.vocab_size, {rows, tokens}, at::kLong);
  return [=, first = layer.vocabulary_first(), group = layer.partition().tensor](const Tensors&) {
    return Tensors{vocabulary_embed(weight, first, ids, group)};
  };
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

// The update of every tensor that a process holds, or of as many as fit into a number of elements, scaled.
class UpdateBench {
 public:
  UpdateBench(const ModelConfig& config, at::ScalarType type, const RunConfig::Optimizer& options,
              const Partition& partition, const Layout* layout) {
    constexpr double most = 1 << 26;
    std::vector<Parameter> parameters;
    double taken = 0, all = 0, whole = 0;
    for (const PartSpec& part : part_specs(config, partition)) {
      if (part.whole.buffer) continue;
      auto shape = part.shape;
      double elements = 1;
      for (const auto d : shape) elements *= static_cast<double>(d);
      if (layout != nullptr) {  // of which it keeps a piece
        const auto n = part.spread == Spread::expert ? layout->expert_shard() : layout->shard;
        shape[0] = (shape[0] + n - 1) / n;
        if (layout->zero < 2) whole += elements;
        elements /= static_cast<double>(n);
        if (layout->zero >= 2) whole += elements;
      }
      all += elements;
      if (taken > 0 && taken + elements > most) continue;
      taken += elements;
      parameters.push_back({part.whole.name, at::zeros(shape, type).requires_grad_(), false});
    }
    scale_ = all / taken;
    optimizer_ = std::make_unique<Optimizer>(parameters, options);
    // Gradients in shared runs are summed up from zero.
    if (layout != nullptr)
      gradients_ = at::empty({static_cast<std::int64_t>(std::min(most, whole))}, at::kFloat);
    if (gradients_.defined()) zero_scale_ = whole / static_cast<double>(gradients_.numel());
  }

  double run() {
    const double start = clock_seconds();
    const double norm = optimizer_->gradient_norm();
    optimizer_->step(1e-4, norm > 1 ? 1 / norm : 1);
    optimizer_->zero_gradients();
    const double middle = clock_seconds();
    if (gradients_.defined()) gradients_.zero_();
    return (middle - start) * scale_ + (clock_seconds() - middle) * zero_scale_;
  }

 private:
  double scale_ = 1, zero_scale_ = 0;
  std::unique_ptr<Optimizer> optimizer_;
  Tensor gradients_;
};

// What a process works on, without what its weights do besides.
Partition bare_partition(const ModelConfig& config, const PartShape& shape,
                         const std::shared_ptr<Mesh>& mesh) {
  if (mesh == nullptr) return {};
  Partition p = partition_of(mesh, config, shape.tokens);
  p.hooks = nullptr;
  return p;
}

bool splits(const Mesh* mesh) {
  return mesh != nullptr && mesh->layout().pipeline > 1 &&
         (mesh->layout().schedule == "zero-bubble" || mesh->layout().schedule == "dualpipe-v");
}

}  // namespace

struct PartBench::Impl {
  StepParts sums;
  int rounds = -1;
  double slowest = 0, all = 0;  // s of rounds: of the slowest process, and the mean
  std::shared_ptr<Mesh> mesh;
  std::unique_ptr<OneLayer> dense, moe;
  std::list<Part> parts;
  UpdateBench update;

  Impl(const ModelConfig& config, const PartShape& shape, const RunConfig::Optimizer& optimizer,
       const std::shared_ptr<Mesh>& m)
      : mesh(m),
        update(config, shape.type, optimizer, bare_partition(config, shape, m), m ? &m->layout() : nullptr) {
    bool has_dense = false;
    for (std::int64_t l = 0; l < config.num_hidden_layers; ++l)
      has_dense = has_dense || config.ffn_kind(l) == FfnKind::dense;
    Partition partition = bare_partition(config, shape, mesh);
    partition.chunks = {{.first = 0, .end = 1}};
    if (has_dense) dense = std::make_unique<OneLayer>(config, false, shape.type, partition);
    if (config.moe.n_routed_experts > 0)
      moe = std::make_unique<OneLayer>(config, true, shape.type, partition);
    const OneLayer& layer = moe ? *moe : *dense;
    const auto table = rotary_table(config, shape.tokens, wide_type(shape.type), at::kCPU);
    ForwardContext context;
    context.cos = table.cos;
    context.sin = table.sin;
    context.training = true;
    cut_context(context, partition, shape.tokens, at::kCPU);
    const auto seen = shape.tokens / size_of(partition.context);  // by a tensor group
    const std::vector<std::int64_t> x{shape.rows, seen / size_of(partition.tensor), config.hidden_size};
    const auto add = [&](PartSeconds& into, const Forward& forward,
                         const std::vector<std::vector<std::int64_t>>& inputs) {
      parts.emplace_back(into, forward, inputs, shape.type, splits(mesh.get()));
    };
    add(sums.attention, attention_of(layer, context), {x});
    add(sums.norms, norms_of(layer), {x});
    if (dense) add(sums.dense, feed_forward_of(*dense, context), {x});
    if (moe) add(sums.moe, feed_forward_of(*moe, context), {x});
    add(sums.head, head_of(layer, shape.rows, seen), {x});
    add(sums.embedding, embedding_of(layer, shape.rows, seen), {});
    if (config.num_nextn_predict_layers > 0) add(sums.mtp_join, mtp_join_of(layer, shape.type), {x, x});
  }

  void round() {
    const bool counts = rounds++ >= 0;
    double own = 0;
    if (mesh) mesh->world()->barrier();
    for (Part& part : parts) {
      const PartSeconds s = part.run();
      own += s.forward + s.backward;
      if (!counts) continue;
      part.sum.forward += s.forward;
      part.sum.backward += s.backward;
      part.sum.weight += s.weight;
    }
    const double s = update.run();
    if (counts) sums.update += s;
    if (mesh && counts) compare(own + s);
  }

  // A step waits for its slowest process.
  void compare(double own) {
    const auto seconds = at::full({1}, own, at::kDouble), sum = seconds.clone();
    mesh->world()->all_reduce(seconds, Reduction::max);
    mesh->world()->all_reduce(sum);
    slowest += seconds.item<double>();
    all += sum.item<double>() / mesh->size();
  }
};

PartBench::PartBench(const ModelConfig& config, const PartShape& shape, const RunConfig::Optimizer& optimizer,
                     const std::shared_ptr<Mesh>& mesh) {
  require(shape.rows > 0 && shape.tokens > 0, "a shape of {} rows of {} tokens", shape.rows, shape.tokens);
  at::manual_seed(mesh == nullptr ? 1 : static_cast<std::uint64_t>(1 + mesh->rank()));
  impl_ = std::make_unique<Impl>(config, shape, optimizer, mesh);
}
PartBench::~PartBench() = default;
void PartBench::round() { impl_->round(); }

StepParts PartBench::mean() const {
  StepParts parts = impl_->sums;
  std::vector<double*> numbers{&parts.update};
  for (PartSeconds* p : {&parts.attention, &parts.norms, &parts.dense, &parts.moe, &parts.head,
                         &parts.embedding, &parts.mtp_join})
    numbers.insert(numbers.end(), {&p->forward, &p->backward, &p->weight});
  double count = std::max(1, impl_->rounds);  // that the sums are of
  if (Mesh* const mesh = impl_->mesh.get()) {
    const auto all = at::empty({static_cast<std::int64_t>(numbers.size())}, at::kDouble);
    auto* const values = all.data_ptr<double>();
    for (std::size_t i = 0; i < numbers.size(); ++i) values[i] = *numbers[i];
    mesh->world()->all_reduce(all);
    for (std::size_t i = 0; i < numbers.size(); ++i) *numbers[i] = values[i];
    count *= mesh->size() * impl_->all / impl_->slowest;
  }
  for (double* number : numbers) *number /= count;
  return parts;
}

StepParts bench_parts(const ModelConfig& config, const PartShape& shape,
                      const RunConfig::Optimizer& optimizer, double seconds,
                      const std::shared_ptr<Mesh>& mesh) {
  PartBench bench(config, shape, optimizer, mesh);
  const double begin = clock_seconds();
  bench.round();
  bench.round();
  double one = (clock_seconds() - begin) / 2;
  if (mesh) {  // all make the same number of rounds
    const auto longest = at::full({1}, one, at::kDouble);
    mesh->world()->all_reduce(longest, Reduction::max);
    one = longest.item<double>();
  }
  for (int more = static_cast<int>(seconds / one) - 2; more > 0; --more) bench.round();
  return bench.mean();
}

}  // namespace sinew
