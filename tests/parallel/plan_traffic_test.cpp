// The planner's bytes beside those that the trainer keeps and counts.
#include <gtest/gtest.h>

#include "model/tiny_models.hpp"
#include "parallel/tiny_training.hpp"
#include "plan/trainer_state.hpp"

namespace sinew {
namespace {

using test::TinyRun;

void check(const ModelConfig& config, const Layout& asked) {
  TinyRun run{.config = config};
  run.steps = 1;
  run.micro = 4;
  const Layout layout = check_layout(
      asked, {.processes = 4, .batch = run.rows, .micro_batch = run.micro, .sequence = run.sequence}, config);
  std::atomic<std::int64_t> kept{0}, planned{0};
  test::run_ranks(4, [&](const std::shared_ptr<Endpoint>& endpoint) {
    const auto mesh = std::make_shared<Mesh>(endpoint, layout);
    test::train_tiny(run, mesh, [&](const LanguageModel&, const Optimizer& optimizer) {
      for (const TrainedTensor& t : optimizer.tensors())
        kept += static_cast<std::int64_t>(t.first.nbytes() + t.second.nbytes());
    });
    const plan::Place place{.pipeline = 0,
                            .tensor = 0,
                            .expert = endpoint->rank() % layout.expert,
                            .shard = mesh->position(Axis::shard),
                            .data = mesh->position(Axis::data)};
    const plan::StateTraffic want = plan::state_traffic(config, layout, layout.micro_batches, false, place);
    const auto& traffic = endpoint->traffic();
    EXPECT_EQ(traffic.of("shard", "all_gather").bytes(), want.gather) << layout_name(layout);
    EXPECT_EQ(traffic.of("shard", "reduce_scatter").bytes(), want.scatter) << layout_name(layout);
    EXPECT_EQ(traffic.of("data+context+tensor", "all_reduce").bytes(), want.replicas) << layout_name(layout);
    EXPECT_EQ(traffic.of("expert_shard", "all_gather").bytes(), want.expert_gather) << layout_name(layout);
    EXPECT_EQ(traffic.of("expert_shard", "reduce_scatter").bytes(), want.expert_scatter)
        << layout_name(layout);
    EXPECT_EQ(traffic.of("expert_data", "all_reduce").bytes(), want.expert_replicas) << layout_name(layout);
    planned += plan::trainer_state(config, layout, run.sequence, false, place).optimizer;
  });
  EXPECT_EQ(kept, planned) << layout_name(layout);
}

TEST(PlanTraffic, EqualsTheCountersForDataAndShards) {
  for (const std::int64_t zero : {1, 2, 3}) {
    check(test::tiny_deepseek_v2(), {.data = 2, .shard = 2, .zero = zero});
    check(test::tiny_deepseek_v3(), {.data = 1, .shard = 4, .zero = zero});
  }
  check(test::tiny_llama(), {.data = 4, .shard = 1});
}

TEST(PlanTraffic, EqualsTheCountersForExperts) {
  check(test::tiny_deepseek_v2(), {.data = 4, .expert = 4});
  check(test::tiny_deepseek_v2(), {.data = 4, .expert = 2});
}

}  // namespace
}  // namespace sinew
