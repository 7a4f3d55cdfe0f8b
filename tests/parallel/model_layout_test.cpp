// A network cut over threads as ranks (tensor, context, pipeline) against the same network in one piece: the
// parts of losses, loads and gradients sum to those of the whole.
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <map>

#include "config/stages.hpp"
#include "model/families.hpp"
#include "model/language_model.hpp"
#include "ops/fused.hpp"
#include "parallel/pipeline.hpp"
#include "parallel/thread_group.hpp"

namespace sinew {
namespace {

using at::Tensor;

constexpr std::int64_t kRows = 2, kTokens = 16;
constexpr int kMicroBatches = 4;

struct Cut {
  int tensor = 1, context = 1, pipeline = 1;
  ScheduleKind schedule = ScheduleKind::one_f_one_b;
  int chunks = 1;
  int size() const { return tensor * context * pipeline; }
};

struct Case {
  std::string family;
  Cut cut;
  at::ScalarType type = at::kDouble;
  bool documents = false, batch_wise = false;
  Recompute recompute = Recompute::none;
};

std::ostream& operator<<(std::ostream& out, const Case& c) {
  return out << c.family << " tensor " << c.cut.tensor << " context " << c.cut.context << " pipeline "
             << c.cut.pipeline << " " << schedule_name(c.cut.schedule) << " " << at::toString(c.type)
             << (c.documents ? " documents" : "") << (c.recompute == Recompute::none ? "" : " recomputed");
}

ModelConfig config_of(const Case& c) {
  auto config = test::tiny_model(c.family);
  config.num_hidden_layers = std::max<std::int64_t>(
      config.num_hidden_layers,
      c.cut.pipeline * std::max(c.cut.chunks, c.cut.schedule == ScheduleKind::dualpipe_v ? 2 : 1));
  config.initializer_range = 0.1;
  return config;
}

BalanceOptions balance_of(const Case& c, const ModelConfig& config) {
  if (config.moe.n_routed_experts == 0) return {};
  BalanceOptions o;
  o.expert_alpha = 0.1;
  o.sequence_wise = !c.batch_wise;
  o.z_alpha = 0.05;
  if (config.attention == Attention::gqa) o.joint_alpha = 0.2;
  if (config.moe.n_group > 1) {
    o.device_groups = 4;
    o.device_limit = 2;
    o.device_alpha = 0.1;
    o.communication_alpha = 0.1;
  }
  return o;
}

struct MicroBatch {
  Tensor tokens, targets, documents;
};
MicroBatch micro_batch(const Case& c, const ModelConfig& config, int m) {
  MicroBatch b;
  b.tokens = test::random_tokens(kRows, kTokens, config.vocab_size, 10 + static_cast<std::uint64_t>(m));
  b.targets = test::next_tokens(b.tokens);
  if (c.documents) {
    b.documents = at::stack({at::arange(kTokens) / 5, at::arange(kTokens) / 11}).to(at::kInt);
    b.targets.narrow(1, 0, kTokens - 1)
        .masked_fill_(b.documents.narrow(1, 0, kTokens - 1) != b.documents.narrow(1, 1, kTokens - 1), -100);
  }
  return b;
}

// What one process, or all together, make of the micro-batches.
struct Sums {
  double total = 0, cross_entropy = 0, balance = 0, z = 0, mtp = 0;
  std::map<std::int64_t, Tensor> counts;    // by layer
  std::map<std::string, Tensor> gradients;  // whole
  void add(const LossOutput& loss) {
    const auto value = [](const Tensor& x) { return x.defined() ? x.item<double>() : 0; };
    total += value(loss.total.defined() ? loss.total.detach() : loss.total);
    cross_entropy += value(loss.cross_entropy);
    balance += value(loss.balance);
    z += value(loss.z);
    mtp += value(loss.mtp);
    for (const auto& load : loss.loads) {
      auto& sum = counts[load.layer];
      sum = sum.defined() ? sum + load.counts : load.counts;
    }
  }
  void add(const Sums& other) {
    total += other.total;
    cross_entropy += other.cross_entropy;
    balance += other.balance;
    z += other.z;
    mtp += other.mtp;
    for (const auto& [layer, count] : other.counts) {
      auto& sum = counts[layer];
      sum = sum.defined() ? sum + count : count;
    }
  }
};

class Stages : public StageModule {
 public:
  Stages(LanguageModel& model, const Case& c) : model_(model), case_(c) {}
  StageFlow empty_flow(int) const override { return model_.empty_flow(kRows, kTokens); }
  StageResult forward(int chunk, int m, const StageFlow& in) override {
    const auto b = micro_batch(case_, model_.config(), m);
    auto out = model_.stage(static_cast<std::size_t>(chunk),
                            {b.tokens, b.targets, b.documents, 1.0 / kMicroBatches, {}, in});
    sums.add(out.loss);
    return {out.flow, out.loss.total};
  }
  Sums sums;

 private:
  LanguageModel& model_;
  const Case& case_;
};

// Where gradients are made in place, as trainers have it.
void prepare(const LanguageModel& model) {
  for (const auto& p : model.parameters())
    if (!p.buffer && p.tensor.scalar_type() == at::kFloat) p.tensor.mutable_grad() = at::zeros_like(p.tensor);
}

Tensor box_of(const Tensor& whole, const PartSpec& part) {
  auto box = whole;
  for (std::size_t d = 0; d < part.shape.size(); ++d)
    box = box.narrow(static_cast<std::int64_t>(d), part.offset[d], part.shape[d]);
  return box;
}

Partition partition_at(const Case& c, const ModelConfig& config, test::ThreadWorld& world, int rank,
                       const Schedule& schedule, GroupPtr& pipeline) {
  const auto& cut = c.cut;
  const int t = rank % cut.tensor, x = rank / cut.tensor % cut.context, p = rank / (cut.tensor * cut.context);
  Partition out;
  out.tensor = world.group(fmt::format("tensor {} {}", x, p), t, cut.tensor);
  out.context = world.group(fmt::format("context {} {}", t, p), x, cut.context);
  out.row = world.group(fmt::format("row {}", p), x * cut.tensor + t, cut.tensor * cut.context);
  pipeline = world.group(fmt::format("pipeline {} {}", t, x), p, cut.pipeline);
  const auto parts = balanced_stages(config, schedule.stages(), kTokens);
  for (int chunk = 0; chunk < schedule.chunks; ++chunk) {
    out.chunks.push_back(parts[static_cast<std::size_t>(schedule.stage_of(p, chunk))]);
  }
  return out;
}

class ModelLayoutTest : public testing::TestWithParam<Case> {};

TEST_P(ModelLayoutTest, PartsSumToTheWhole) {
  const auto& c = GetParam();
  const auto config = config_of(c);
  const auto balance = balance_of(c, config);
  const auto whole = test::random_model(config, c.type);
  whole->set_balance(balance);
  prepare(*whole);
  Sums want;
  for (int m = 0; m < kMicroBatches; ++m) {
    const auto b = micro_batch(c, config, m);
    const auto loss = whole->loss(b.tokens, b.targets, b.documents, 1.0 / kMicroBatches);
    loss.total.backward();
    want.add(loss);
  }

  Sums got;
  std::map<std::string, Tensor> gradients;
  for (const auto& p : whole->parameters())
    if (!p.buffer) gradients[p.name] = at::zeros(p.tensor.sizes(), at::kDouble);
  std::mutex mutex;
  const auto schedule = make_schedule(c.cut.schedule, c.cut.pipeline, kMicroBatches, c.cut.chunks);
  test::on_world(c.cut.size(), [&](test::ThreadWorld& world, int rank) {
    GroupPtr pipeline;
    const auto partition = partition_at(c, config, world, rank, schedule, pipeline);
    LanguageModel model(config, c.type, at::kCPU, 1, partition);
    {
      const at::NoGradGuard no_grad;
      for (const auto& p : model.parameters()) {
        for (const auto& q : whole->parameters()) {
          if (q.name != p.name) continue;
          const bool random = p.tensor.dim() >= 2;  // the others were changed above
          EXPECT_TRUE(!random || at::equal(p.tensor, box_of(q.tensor, p.part))) << p.name;
          p.tensor.copy_(box_of(q.tensor, p.part));
        }
      }
    }
    model.set_balance(balance);
    model.set_recompute(c.recompute);
    prepare(model);
    Stages stages(model, c);
    run_pipeline(schedule, pipeline, stages);
    const std::lock_guard lock(mutex);
    got.add(stages.sums);
    for (const auto& p : model.parameters())
      if (!p.buffer && p.tensor.grad().defined()) box_of(gradients[p.name], p.part).add_(p.tensor.grad());
  });

  const double bound = c.type == at::kDouble ? 1e-10 : 2e-5;
  const auto near = [&](const char* name, double a, double b) {
    EXPECT_NEAR(a, b, bound * std::max(1.0, std::abs(b))) << name;
  };
  near("total", got.total, want.total);
  near("cross entropy", got.cross_entropy, want.cross_entropy);
  near("balance", got.balance, want.balance);
  near("z", got.z, want.z);
  near("mtp", got.mtp, want.mtp);
  ASSERT_EQ(got.counts.size(), want.counts.size());
  for (const auto& [layer, count] : want.counts) EXPECT_TRUE(at::equal(got.counts[layer], count)) << layer;
  for (const auto& p : whole->parameters()) {
    if (p.buffer) continue;
    const auto exact = p.tensor.grad().to(at::kDouble);
    const double error = (gradients[p.name] - exact).abs().max().item<double>(),
                 size = exact.abs().max().item<double>();
    EXPECT_LE(error, bound * std::max(size, 0.1)) << p.name << " of " << size;
  }
}

std::vector<Case> cases() {
  using enum ScheduleKind;
  std::vector<Case> all;
  for (const char* family :
       {"deepseek_v3", "deepseek_v2_lite", "mixtral", "qwen3_moe", "llama_tied_llama3_rope"}) {
    all.push_back({family, {.tensor = 2}});
    all.push_back({family, {.context = 2}});
    all.push_back({family, {.pipeline = 2, .schedule = one_f_one_b}});
  }
  all.push_back({.family = "deepseek_v3", .cut = {.tensor = 4}, .batch_wise = true});
  all.push_back({.family = "deepseek_v3", .cut = {.context = 4}, .documents = true});
  all.push_back({.family = "mixtral", .cut = {.tensor = 2, .context = 2}, .documents = true});
  all.push_back(
      {.family = "deepseek_v3", .cut = {.tensor = 2, .context = 2, .pipeline = 2}, .documents = true});
  for (const auto schedule : schedule_kinds()) {
    all.push_back({"deepseek_v3", {.pipeline = 2, .schedule = schedule, .chunks = 2}});
    all.push_back({"mixtral", {.pipeline = 2, .schedule = schedule, .chunks = 2}});
    all.push_back(
        {"deepseek_v3", {.tensor = 2, .pipeline = 2, .schedule = schedule, .chunks = 2}, at::kFloat});
  }
  all.push_back({"deepseek_v3", {.context = 2, .pipeline = 4, .schedule = dualpipe_v}, at::kFloat});
  all.push_back({"llama_tied_llama3_rope", {.pipeline = 4, .schedule = zero_bubble}, at::kFloat});
  // Recomputed layers speak to the others again in the backward pass.
  for (const auto recompute : {Recompute::full, Recompute::selective})
    all.push_back({.family = "deepseek_v3", .cut = {.tensor = 2, .context = 2}, .recompute = recompute});
  all.push_back({.family = "deepseek_v3",
                 .cut = {.tensor = 2, .pipeline = 2, .schedule = zero_bubble},
                 .type = at::kFloat,
                 .recompute = Recompute::full});
  return all;
}

INSTANTIATE_TEST_SUITE_P(Cuts, ModelLayoutTest, testing::ValuesIn(cases()));

}  // namespace
}  // namespace sinew
