#include "train/step_bench.hpp"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <sys/resource.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>

#include "base/clock.hpp"
#include "base/error.hpp"
#include "base/text.hpp"
#include "config/run_config.hpp"
#include "model/language_model.hpp"
#include "ops/fused.hpp"
#include "ops/gate.hpp"
#include "ops/gemm_peak.hpp"
#include "ops/moe.hpp"
#include "ops/swiglu_network.hpp"
#include "ops/tensor.hpp"
#include "train/optimizer.hpp"

namespace sinew {
namespace {

using at::Tensor;

ModelConfig mixture(std::int64_t layers, std::int64_t hidden, std::int64_t heads, std::int64_t kv_lora,
                    std::int64_t nope, std::int64_t value) {
  ModelConfig c;
  c.model_type = "deepseek_v2";
  c.num_hidden_layers = layers;
  c.hidden_size = hidden;
  c.num_attention_heads = c.num_key_value_heads = heads;
  c.attention = Attention::mla;
  c.kv_lora_rank = kv_lora;
  c.qk_nope_head_dim = nope;
  c.qk_rope_head_dim = 16;
  c.v_head_dim = value;
  c.rope_layout = RopeLayout::interleaved;
  c.moe.aux_loss_alpha = 0.003;
  return c;
}

void set_experts(ModelConfig& c, std::int64_t experts, std::int64_t width, std::int64_t top_k,
                 std::int64_t shared, std::int64_t dense_layers, std::int64_t dense_width) {
  c.moe.n_routed_experts = experts;
  c.moe.moe_intermediate_size = width;
  c.moe.num_experts_per_tok = top_k;
  c.moe.n_shared_experts = shared;
  c.moe.first_k_dense_replace = dense_layers;
  c.intermediate_size = dense_width;
}

ModelConfig medium() {
  auto c = mixture(12, 512, 8, 128, 48, 48);
  set_experts(c, 64, 192, 6, 2, 1, 1536);
  c.vocab_size = 16384;
  return c;
}

struct Batch {
  Tensor tokens, targets;
};

Batch random_batch(const BenchPreset& p, std::int64_t step) {
  const auto generator_seed = 1000 + step;
  at::manual_seed(static_cast<std::uint64_t>(generator_seed));
  const auto all = at::randint(0, p.model.vocab_size, {p.rows, p.tokens + 1}, at::kLong);
  return {all.narrow(1, 0, p.tokens).contiguous(), all.narrow(1, 1, p.tokens).contiguous()};
}

std::int64_t peak_bytes() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return static_cast<std::int64_t>(usage.ru_maxrss) * 1024;
}

std::int64_t page_faults() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return usage.ru_minflt;
}

// An MoE layer and a dense one of equal work. A weight has a buffer for its fp32 gradient, as the trainer
// keeps it.
struct Layer {
  Tensor x, dy, gate;
  ExpertWeights experts;
  Tensor shared[3], dense[3];
  std::int64_t top_k = 0;

  Layer(const BenchPreset& p, at::ScalarType dtype) : top_k(p.model.moe.num_experts_per_tok), type_(dtype) {
    const auto& moe = p.model.moe;
    const auto tokens = p.rows * p.tokens, hidden = p.model.hidden_size, width = moe.moe_intermediate_size;
    at::manual_seed(1);
    x = at::randn({tokens, hidden}).to(type_).requires_grad_();
    dy = at::randn({tokens, hidden}).to(type_);
    gate = weight(moe.n_routed_experts, hidden);
    for (std::int64_t e = 0; e < moe.n_routed_experts; ++e) {
      experts.gate.push_back(weight(width, hidden));
      experts.up.push_back(weight(width, hidden));
      experts.down.push_back(weight(hidden, width));
    }
    const auto of_shared = moe.n_shared_experts * width;
    for (auto& [into, wide] : {std::pair{shared, of_shared}, std::pair{dense, of_shared + top_k * width}}) {
      into[0] = weight(wide, hidden);
      into[1] = weight(wide, hidden);
      into[2] = weight(hidden, wide);
    }
  }

  // As a step begins.
  void forget_gradients() {
    x.mutable_grad().reset();
    for (Tensor& w : weights_) w.mutable_grad().reset();
  }

 private:
  Tensor weight(std::int64_t rows, std::int64_t columns) {
    weights_.push_back((at::randn({rows, columns}) * 0.02).to(type_).requires_grad_());
    buffers_.add(weights_.back(), at::zeros({rows, columns}, at::kFloat));
    return weights_.back();
  }
  at::ScalarType type_;
  std::vector<Tensor> weights_;
  GradientBuffers buffers_;
};

double run_moe(Layer& l, bool skewed) {
  l.forget_gradients();
  const double start = clock_seconds();
  const auto experts = l.gate.size(0);
  auto routing = gate(project_wide(l.x, l.gate), {}, {.top_k = l.top_k});
  if (skewed) {  // every other token goes to expert 0
    routing.experts = routing.experts.clone();
    auto half = routing.experts.slice(0, 0, l.x.size(0), 2);
    half.masked_fill_(half == 0, experts - 1);
    half.select(1, 0).fill_(0);
  }
  const auto where = dispatch(routing.experts, {}, experts);
  const auto shared =
      l.shared[0].size(0) > 0 ? swiglu_network(l.x, l.shared[0], l.shared[1], l.shared[2]) : Tensor();
  const auto y = moe_experts(l.x, routing.weights, where, l.experts, shared);
  torch::autograd::backward({y}, {l.dy});
  return clock_seconds() - start;
}

double run_dense(Layer& l) {
  l.forget_gradients();
  const double start = clock_seconds();
  torch::autograd::backward({swiglu_network(l.x, l.dense[0], l.dense[1], l.dense[2])}, {l.dy});
  return clock_seconds() - start;
}

}  // namespace

std::vector<std::string> bench_preset_names() { return {"S", "M", "gpt2", "long", "tiny"}; }

BenchPreset bench_preset(std::string_view name) {
  BenchPreset p{.name = std::string(name), .model = {}, .rows = 0, .tokens = 0};
  if (name == "S") {
    p.model = mixture(6, 256, 4, 64, 32, 32);
    set_experts(p.model, 16, 128, 4, 1, 0, 640);
    p.model.vocab_size = 4096;
    p.rows = 16, p.tokens = 256;
  } else if (name == "M") {
    p.model = medium();
    p.rows = 8, p.tokens = 512;
  } else if (name == "long") {
    p.model = medium();
    p.rows = 1, p.tokens = 4096;
  } else if (name == "tiny") {
    p.model = mixture(2, 64, 2, 16, 16, 16);
    set_experts(p.model, 8, 32, 2, 1, 1, 128);
    p.model.vocab_size = 256;
    p.rows = 2, p.tokens = 64;
  } else if (name == "gpt2") {
    auto& c = p.model;
    c.model_type = "llama";
    c.num_hidden_layers = c.num_attention_heads = c.num_key_value_heads = 12;
    c.hidden_size = 768;
    c.head_dim = 64;
    c.intermediate_size = 2048;  // three matrices: the work of two of 3072
    c.vocab_size = 50257;
    c.tie_word_embeddings = true;
    p.rows = 4, p.tokens = 512;
  } else {
    fail("no preset {}; there are {}", name, join(bench_preset_names(), ", "));
  }
  p.model.max_position_embeddings = p.tokens;
  return p;
}

void vary_preset(BenchPreset& p, std::int64_t tokens, std::int64_t experts) {
  if (tokens > 0) {
    p.rows = std::max<std::int64_t>(1, p.rows * p.tokens / tokens);
    p.tokens = tokens;
    p.model.max_position_embeddings = tokens;
    p.name += fmt::format("-t{}", tokens);
  }
  if (experts == 0) return;
  require(p.model.moe.n_routed_experts > 0, "preset {} has no experts", p.name);
  require(experts >= p.model.moe.num_experts_per_tok, "preset {}: each token takes {} experts", p.name,
          p.model.moe.num_experts_per_tok);
  p.model.moe.n_routed_experts = experts;
  p.name += fmt::format("-e{}", experts);
}

StepTimes bench_steps(const BenchPreset& preset, at::ScalarType type, std::int64_t warmup,
                      std::int64_t steps) {
  LanguageModel model(preset.model, type, at::kCPU, /*seed=*/1);
  BalanceOptions balance;
  balance.expert_alpha = preset.model.moe.aux_loss_alpha;
  model.set_balance(balance);
  Optimizer optimizer(model.parameters(), RunConfig::Optimizer{});
  StepTimes t;
  t.tokens = preset.rows * preset.tokens;
  t.flops = train_flops_per_token(preset.model, preset.tokens) * static_cast<double>(t.tokens);
  t.parameters = count_parameters(preset.model).total;
  std::vector<double> seconds, peaks, shares;
  std::int64_t faults = 0;
  const auto share = 1.0 / static_cast<double>(std::max<std::int64_t>(1, steps));
  for (std::int64_t i = 0; i < warmup + steps; ++i) {
    const Batch batch = random_batch(preset, i);
    OpTimes times;
    const OpTimesScope scope(times);
    const std::int64_t faults_before = page_faults();
    const double start = clock_seconds();
    const auto loss = model.loss(batch.tokens, batch.targets);
    const double middle = clock_seconds();
    torch::autograd::backward({loss.total}, {});
    const double end = clock_seconds();
    optimizer.accumulate();
    const double norm = optimizer.gradient_norm();
    optimizer.step(4e-4, norm > 1 ? 1 / norm : 1);
    optimizer.zero_gradients();
    const double last = clock_seconds();
    t.loss = loss.cross_entropy.item<double>();
    if (i < warmup) continue;
    faults += page_faults() - faults_before;
    seconds.push_back(last - start);
    peaks.push_back(torch_gemm_peak(at::kCPU, type, 0.1));
    shares.push_back(t.flops / seconds.back() / peaks.back());
    t.forward += (middle - start) * share;
    t.backward += (end - middle) * share;
    t.optimizer += (last - end) * share;
    for (std::size_t k = 0; k < times.seconds.size(); ++k) {
      t.operations.seconds[k].forward += times.seconds[k].forward * share;
      t.operations.seconds[k].backward += times.seconds[k].backward * share;
    }
  }
  t.seconds = median_range(seconds), t.peak = median_range(peaks), t.utilisation = median_range(shares);
  t.peak_bytes = peak_bytes();
  t.page_faults = warmup > 0 ? faults / std::max<std::int64_t>(1, steps) : 0;
  return t;
}

RoutingTimes bench_routing(const BenchPreset& preset, at::ScalarType type, std::int64_t rounds) {
  require(preset.model.moe.n_routed_experts > 0, "preset {} has no experts to route to", preset.name);
  Layer layer(preset, type);
  std::vector<double> moe, dense, ratio, skewed_ratio;
  for (std::int64_t i = -2; i < rounds; ++i) {
    const double a = run_moe(layer, false), b = run_dense(layer), c = run_moe(layer, true);
    if (i < 0) continue;
    moe.push_back(a);
    dense.push_back(b);
    ratio.push_back(a / b);
    skewed_ratio.push_back(c / b);
  }
  return {median_range(moe), median_range(dense), median_range(ratio), median_range(skewed_ratio)};
}

}  // namespace sinew
