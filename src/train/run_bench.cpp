#include <ATen/ATen.h>

#include <chrono>

#include "base/random.hpp"
#include "train/batch.hpp"
#include "train/part_bench.hpp"

namespace sinew {

struct RunBench::Impl {
  RunShape shape;
  LanguageModel model;
  Optimizer optimizer;
  std::uint64_t steps = 0;

  Impl(const ModelConfig& config, const RunShape& s, const RunConfig::Optimizer& options)
      : shape(s),
        model(config, s.micro.type, at::kCPU, /*seed=*/1),
        optimizer((balance(model), model.parameters()), options) {
    model.set_recompute(shape.recompute);
  }

  static void balance(LanguageModel& model) {
    const ModelConfig& config = model.config();
    if (config.moe.n_routed_experts == 0 && config.num_nextn_predict_layers == 0) return;
    BalanceOptions options;
    options.expert_alpha = config.moe.aux_loss_alpha;
    model.set_balance(options);
  }

  TokenBatch batch() {
    TokenBatch b;
    b.rows = shape.micro.rows * shape.micro_batches;
    b.sequence = shape.micro.tokens;
    const auto count = static_cast<std::size_t>(b.rows * (b.sequence + 1));
    const Random random(7, steps++);
    b.documents.assign(count, 0);
    const auto vocabulary = static_cast<std::uint64_t>(model.config().vocab_size);
    for (std::size_t i = 0; i < count; ++i)
      b.tokens.push_back(static_cast<TokenId>(random.below(i, vocabulary)));
    return b;
  }
};

RunBench::RunBench(const ModelConfig& config, const RunShape& shape, const RunConfig::Optimizer& optimizer)
    : impl_(std::make_unique<Impl>(config, shape, optimizer)) {}
RunBench::~RunBench() = default;

double RunBench::step() {
  const TokenBatch batch = impl_->batch();
  Optimizer& optimizer = impl_->optimizer;
  const auto start = std::chrono::steady_clock::now();
  forward_backward(impl_->model, optimizer, batch, impl_->shape.micro.rows, false, at::kCPU);
  const double norm = optimizer.gradient_norm();
  optimizer.step(1e-4, norm > 1 ? 1 / norm : 1);
  optimizer.zero_gradients();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace sinew
