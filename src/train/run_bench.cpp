#include <ATen/ATen.h>

#include "base/clock.hpp"
#include "base/random.hpp"
#include "parallel/partition_of.hpp"
#include "parallel/sharding.hpp"
#include "train/batch.hpp"
#include "train/part_bench.hpp"

namespace sinew {

struct RunBench::Impl {
  RunShape shape;
  std::shared_ptr<Mesh> mesh;
  LanguageModel model;
  Optimizer optimizer;
  std::uint64_t steps = 0;

  Impl(const ModelConfig& config, const RunShape& s, const RunConfig::Optimizer& options,
       std::shared_ptr<Mesh> m)
      : shape(s),
        mesh(std::move(m)),
        model(config, s.micro.type, at::kCPU, /*seed=*/1,
              mesh ? partition_of(mesh, config, s.micro.tokens) : Partition{}),
        optimizer(made_optimizer(model, options)) {
    balance(model);
    model.set_recompute(shape.recompute);
  }

  static Optimizer made_optimizer(const LanguageModel& model, const RunConfig::Optimizer& options) {
    if (auto sharding = std::dynamic_pointer_cast<Sharding>(model.partition().hooks))
      return {model.parameters(), std::move(sharding), options};
    return {model.parameters(), options};
  }
  std::int64_t micro_rows() const {  // of all replicas together
    return shape.micro.rows * (mesh ? mesh->layout().replicas() : 1);
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
    b.rows = micro_rows() * shape.micro_batches;
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

RunBench::RunBench(const ModelConfig& config, const RunShape& shape, const RunConfig::Optimizer& optimizer,
                   std::shared_ptr<Mesh> mesh)
    : impl_(std::make_unique<Impl>(config, shape, optimizer, std::move(mesh))) {}
RunBench::~RunBench() = default;

double RunBench::step() {
  const TokenBatch batch = impl_->batch();
  Optimizer& optimizer = impl_->optimizer;
  Mesh* const mesh = impl_->mesh.get();
  if (mesh != nullptr) mesh->world()->barrier();
  const double start = clock_seconds();
  forward_backward(impl_->model, optimizer, batch, impl_->micro_rows(), false, at::kCPU, mesh);
  const double norm = optimizer.gradient_norm();
  optimizer.step(1e-4, norm > 1 ? 1 / norm : 1);
  optimizer.zero_gradients();
  if (mesh != nullptr) mesh->world()->barrier();
  return clock_seconds() - start;
}

}  // namespace sinew
