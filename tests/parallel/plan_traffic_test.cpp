// The planner's bytes beside those that the trainer keeps and counts, for every layout that tests train.
#include <gtest/gtest.h>

#include "config/run_config.hpp"
#include "model/tiny_models.hpp"
#include "parallel/routed_rows.hpp"
#include "train/layout_table.hpp"

namespace sinew {
namespace {

using test::TinyRun;

plan::StepWork work_of(const TinyRun& run, const Layout& layout) {
  using Balance = plan::StepWork::Balance;
  const bool moe = run.config.moe.n_routed_experts > 0, layered = moe && run.balance.expert_alpha > 0;
  return {.rows = run.micro / layout.replicas(),
          .sequence = run.sequence,
          .micro_batches = run.rows / run.micro,
          .bf16 = run.dtype == at::kBFloat16,
          .recompute = run.recompute == Recompute::full,
          .mask_documents = run.mask_documents,
          .muon = run.optimizer.kind == "muon",
          .stop_signal = false,
          .balance = moe && run.balance.joint_alpha > 0     ? Balance::joint
                     : layered && run.balance.sequence_wise ? Balance::by_sequence
                     : layered                              ? Balance::by_batch
                                                            : Balance::none,
          .device_groups = layered && run.balance.communication_alpha > 0 ? run.balance.device_groups : 0};
}

plan::SentBytes counted(TrafficCounters& counters) {
  plan::SentBytes bytes;
  for (const auto& [key, traffic] : counters.table())
    if (traffic.bytes() > 0) bytes[key] = traffic.bytes();
  return bytes;
}

void check(TinyRun run, const Layout& asked) {
  run.steps = 1;
  const Layout layout = check_layout(
      asked,
      {.processes = asked.size(), .batch = run.rows, .micro_batch = run.micro, .sequence = run.sequence},
      run.config);
  SCOPED_TRACE(run.config.model_type + " " + layout_name(layout));
  const plan::StepWork work = work_of(run, layout);
  std::vector<std::vector<plan::RoutedRows>> rows;  // by pipeline rank
  for (std::int64_t p = 0; p < layout.pipeline && layout.expert > 1; ++p) {
    const auto held = plan::held_network(run.config, layout, run.sequence, {.pipeline = p});
    rows.push_back(test::routed_rows(run, layout, [&](std::int64_t layer) {
      return std::any_of(held.chunks.begin(), held.chunks.end(), [&](const StagePart& part) {
        return layer >= run.config.num_hidden_layers ? part.head : layer >= part.first && layer < part.end;
      });
    }));
  }
  std::atomic<std::int64_t> kept{0}, planned{0};
  test::run_ranks(
      static_cast<int>(layout.size()),
      [&](const std::shared_ptr<Endpoint>& endpoint) {
        const auto mesh = std::make_shared<Mesh>(endpoint, layout);
        test::train_tiny(run, mesh, [&](const LanguageModel&, const Optimizer& optimizer) {
          for (const TrainedTensor& t : optimizer.tensors()) {
            kept +=
                static_cast<std::int64_t>(t.first.nbytes() + (t.second.defined() ? t.second.nbytes() : 0));
            if (!t.master.is_same(t.weight)) kept += static_cast<std::int64_t>(t.master.nbytes());
          }
        });
        const plan::Place place = plan::place_of(layout, endpoint->rank());
        const plan::RoutedRows own =
            rows.empty() ? plan::RoutedRows{}
                         : rows[static_cast<std::size_t>(place.pipeline)]
                               [static_cast<std::size_t>(endpoint->rank() % layout.stage_size())];
        EXPECT_EQ(counted(endpoint->traffic()), plan::step_traffic(run.config, layout, work, place, own))
            << "rank " << endpoint->rank();
        planned += plan::trainer_state(run.config, layout, run.sequence, work.bf16, place).optimizer;
      },
      static_cast<int>(layout.ranks_per_node));
  if (!work.muon) {  // which keeps one moment
    EXPECT_EQ(kept, planned);
  }
}

TinyRun v2() {
  TinyRun run{.config = test::tiny_deepseek_v2()};
  run.balance.expert_alpha = 0.01;
  return run;
}
TinyRun v3() {
  TinyRun run{.config = test::tiny_deepseek_v3(), .micro = 4};
  run.balance.expert_alpha = 0.01;
  run.mask_documents = true;
  return run;
}
TinyRun mixtral() {
  TinyRun run{.config = test::tiny_mixtral(), .micro = 4};
  run.balance.joint_alpha = 0.02;
  return run;
}
TinyRun dense() { return {.config = test::tiny_llama(), .micro = 4}; }
TinyRun without_mtp(TinyRun run) {
  run.config.num_nextn_predict_layers = 0;
  return run;
}
TinyRun deep(TinyRun run, std::int64_t layers) {
  run.config.num_hidden_layers = layers;
  return run;
}

// Those of `sinew bench layouts`.
TEST(PlanTraffic, EqualsTheCountersInEveryLayoutOfTheTable) {
  bool other = false;
  for (const LayoutCase& c : layout_cases()) {
    if (c.as_group_of_one) continue;
    RunConfig asked;
    for (const auto& setting : c.layout) apply_set(asked, "layout." + setting);
    Layout layout = asked.layout;
    layout.data = c.processes / (layout.shard * layout.row_size() * layout.pipeline);
    auto run = deep((other = !other) ? v2() : without_mtp(v3()), std::max<std::int64_t>(2, layout.stages()));
    run.rows = 16;  // for eight replicas
    run.micro = c.small_micro_batches ? 4 : 8;
    run.balance.sequence_wise = !other;
    check(run, layout);
  }
}

TEST(PlanTraffic, EqualsTheCountersForDataAndShards) {
  for (const std::int64_t zero : {1, 2, 3}) {
    check(v2(), {.data = 2, .shard = 2, .zero = zero});
    check(v3(), {.data = 1, .shard = 4, .zero = zero});
  }
  check(dense(), {.data = 4});
  check(mixtral(), {.data = 2, .shard = 2, .zero = 3});
}

TEST(PlanTraffic, EqualsTheCountersForExperts) {
  check(v2(), {.data = 4, .expert = 2});
  check(v3(), {.data = 4, .expert = 4});
  check(v3(), {.data = 2, .shard = 2, .zero = 2, .expert = 2});
  check(v2(), {.data = 1, .shard = 4, .zero = 3, .expert = 2});
  check(mixtral(), {.data = 2, .tensor = 2, .expert = 2});
  auto narrow = v2();
  narrow.dtype = at::kBFloat16;
  narrow.config.num_hidden_layers = 2;  // 8 bits on the way change what later layers choose
  check(narrow, {.data = 4, .expert = 4, .dispatch = "fp8"});
  check(narrow, {.data = 8, .expert = 8, .ranks_per_node = 4, .node_limit = 2, .dispatch = "fp8"});
  check(without_mtp(v3()), {.data = 4, .expert = 4, .ranks_per_node = 1, .node_limit = 2});
}

TEST(PlanTraffic, EqualsTheCountersForTensorAndContext) {
  for (const auto& run : {v2(), v3(), mixtral(), dense()}) {
    check(run, {.data = 1, .tensor = 2});
    check(run, {.data = 1, .context = 2});
    check(run, {.data = 2, .tensor = 2, .context = 2});
    auto narrow = run;
    narrow.dtype = at::kBFloat16;
    check(narrow, {.data = 1, .context = 4});
    check(narrow, {.data = 1, .tensor = 2, .context = 2});
  }
  auto q = v2();
  q.config.q_lora_rank.reset();
  check(q, {.data = 1, .tensor = 4});
}

TEST(PlanTraffic, EqualsTheCountersForPipelines) {
  for (const char* schedule : {"gpipe", "1f1b", "zero-bubble"}) {
    check(v3(), {.data = 1, .tensor = 2, .pipeline = 2, .schedule = schedule});
    check(mixtral(), {.data = 2, .pipeline = 2, .schedule = schedule});
  }
  check(deep(v3(), 4), {.data = 1, .pipeline = 2, .schedule = "interleaved", .chunks = 2});
  check(deep(v3(), 4), {.data = 1, .pipeline = 2, .schedule = "dualpipe-v"});
  auto tied = dense();
  tied.config.tie_word_embeddings = true;
  check(tied, {.data = 2, .pipeline = 2});
  check(without_mtp(v3()), {.data = 1, .tensor = 2, .pipeline = 2, .expert = 2});
}

// Which units are gathered and when, follows from the schedule.
TEST(PlanTraffic, EqualsTheCountersForShardedStateInPipelines) {
  for (const std::int64_t zero : {1, 2, 3}) {
    for (const char* schedule : {"gpipe", "1f1b", "zero-bubble"})
      check(v3(), {.data = 1, .shard = 2, .zero = zero, .pipeline = 2, .schedule = schedule});
    check(deep(v3(), 4), {.data = 1, .shard = 2, .zero = zero, .pipeline = 2, .schedule = "dualpipe-v"});
    check(deep(v2(), 6),
          {.data = 1, .shard = 2, .zero = zero, .pipeline = 2, .schedule = "interleaved", .chunks = 2});
  }
}

TEST(PlanTraffic, EqualsTheCountersOfWhatIsRarelyAskedFor) {
  auto muon = v2();
  muon.optimizer.kind = "muon";
  check(muon, {.data = 1, .shard = 4, .zero = 3, .expert = 2});
  muon.config.intermediate_size += 1;  // parts of different sizes
  check(muon, {.data = 1, .tensor = 2});
  check(muon, {.data = 1, .shard = 2, .zero = 1, .tensor = 2, .pipeline = 2});
  auto again = v2();
  again.recompute = Recompute::full;
  check(again, {.data = 1, .tensor = 2});
  check(again, {.data = 1, .context = 2});
  check(again, {.data = 2, .expert = 2});
  auto devices = v2();
  devices.balance.communication_alpha = 0.02;
  devices.balance.device_groups = 4;
  devices.balance.device_limit = 2;
  check(devices, {.data = 2, .tensor = 2});
  devices.balance.sequence_wise = false;
  check(devices, {.data = 2, .tensor = 2});
}

}  // namespace
}  // namespace sinew
