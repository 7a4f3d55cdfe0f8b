// The executor on stages that only count and keep a clock of their own: each action adds its cost, and
// messages carry the sender's time. What is measured so is exact and does not depend on the machine.
#include "parallel/pipeline.hpp"

#include <gtest/gtest.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "ops/weight_work.hpp"
#include "parallel/thread_group.hpp"
#include "schedule/simulate.hpp"

namespace sinew {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct Clock {
  double now = 0, busy = 0;
  StageCost cost;
  std::vector<std::string> log;
  void spend(double ready, double time) {
    now = std::max(now, ready) + time;
    busy += time;
  }
};

struct ClockHolder : torch::CustomClassHolder {
  Clock* clock = nullptr;
};

// The value that flows is the time at which it was made.
struct Tick : torch::autograd::Function<Tick> {
  static Tensor forward(AutogradContext* ctx, const Tensor& time,
                        const c10::intrusive_ptr<ClockHolder>& holder) {
    ctx->saved_data["clock"] = c10::IValue::make_capsule(holder);
    Clock& clock = *holder->clock;
    clock.spend(time.item<double>(), clock.cost.forward);
    return at::full({1}, clock.now, at::kDouble);
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    Clock& clock =
        *c10::static_intrusive_pointer_cast<ClockHolder>(ctx->saved_data["clock"].toCapsule())->clock;
    clock.spend(grads[0].item<double>(), clock.cost.backward_input);
    const auto input_done = at::full({1}, clock.now, at::kDouble);
    if (auto* later = WeightWork::current()) {
      later->add([&clock] { clock.spend(0, clock.cost.backward_weight); });
      return {input_done, Tensor()};
    }
    // A whole backward pass sends its gradient at its end.
    clock.spend(0, clock.cost.backward_weight);
    return {at::full({1}, clock.now, at::kDouble), Tensor()};
  }
};

class ClockStage : public StageModule {
 public:
  ClockStage(Clock& clock, const Schedule& schedule, int rank)
      : clock_(clock), schedule_(schedule), rank_(rank) {}
  StageFlow empty_flow(int) const override { return {at::zeros({1}, at::kDouble)}; }
  StageResult forward(int chunk, int, const StageFlow& in) override {
    auto holder = c10::make_intrusive<ClockHolder>();
    holder->clock = &clock_;
    const int stage = schedule_.stage_of(rank_, chunk);
    EXPECT_EQ(in.empty(), stage == 0);
    const auto time = in.empty() ? at::zeros({1}, at::kDouble).requires_grad_() : in[0];
    const auto out = Tick::apply(time, holder);
    if (stage + 1 < schedule_.stages()) return {{out}, {}};
    // Its gradient, the time zero, must not count as ready later than the forward pass was.
    return {{}, (out * 0).sum()};
  }
  void after_backward(int, int) override { ++finished; }
  int finished = 0;

 private:
  Clock& clock_;
  const Schedule& schedule_;
  int rank_;
};

struct Measured {
  std::vector<double> now, busy;
  std::vector<PipelineStatistics> statistics;
  double bubble() const {
    double total = 0;
    for (const double b : busy) total += b;
    return 1 - total / (static_cast<double>(now.size()) * *std::max_element(now.begin(), now.end()));
  }
};

Measured execute(const Schedule& schedule, const StageCost& cost) {
  const auto ranks = static_cast<std::size_t>(schedule.ranks);
  std::vector<Clock> clocks(ranks);
  Measured out{std::vector<double>(ranks), std::vector<double>(ranks),
               std::vector<PipelineStatistics>(ranks)};
  test::on_ranks(schedule.ranks, [&](const GroupPtr& group) {
    const auto rank = static_cast<std::size_t>(group->rank());
    clocks[rank].cost = cost;
    ClockStage stage(clocks[rank], schedule, group->rank());
    out.statistics[rank] = run_pipeline(schedule, group, stage);
    out.now[rank] = clocks[rank].now;
    out.busy[rank] = clocks[rank].busy;
    EXPECT_EQ(stage.finished, schedule.chunks * schedule.micro_batches);
  });
  return out;
}

class PipelineTest : public testing::TestWithParam<std::tuple<ScheduleKind, int, int>> {};

TEST_P(PipelineTest, TakesTheTimeThatTheSimulatorSaysAndHoldsWhatItSays) {
  const auto [kind, ranks, micro_batches] = GetParam();
  const auto schedule = make_schedule(kind, ranks, micro_batches, 2);
  const StageCost cost{.forward = 2, .backward_input = 3, .backward_weight = 1, .activation = 1, .kept = 1};
  const auto measured = execute(schedule, cost);
  const auto simulated = simulate(schedule, {cost});
  EXPECT_DOUBLE_EQ(*std::max_element(measured.now.begin(), measured.now.end()), simulated.makespan);
  EXPECT_NEAR(measured.bubble(), simulated.bubble_share, 1e-12);
  StageCost until_input = cost;
  until_input.kept = 0;
  const auto unfinished = peak_activations(schedule, {cost}),
             held = peak_activations(schedule, {until_input});
  for (std::size_t r = 0; r < measured.now.size(); ++r) {
    EXPECT_DOUBLE_EQ(measured.busy[r], simulated.busy[r]);
    EXPECT_EQ(measured.statistics[r].peak_unfinished, unfinished[r]);
    EXPECT_EQ(measured.statistics[r].peak_held, held[r]);
  }
}

INSTANTIATE_TEST_SUITE_P(Schedules, PipelineTest,
                         testing::Combine(testing::ValuesIn(schedule_kinds()), testing::Values(1, 2, 4),
                                          testing::Values(1, 5, 8)));

// Four ranks, eight micro-batches, the same work of a rank in all: stages of half the size where there are
// two.
TEST(Pipeline, BubblesAreInTheOrderOfTheory) {
  const auto bubble = [](ScheduleKind kind) {
    const auto schedule = make_schedule(kind, 4, 8, 2);
    const double part = 1.0 / schedule.chunks;
    return execute(
               schedule,
               {.forward = part, .backward_input = part, .backward_weight = part, .activation = 1, .kept = 1})
        .bubble();
  };
  const double gpipe = bubble(ScheduleKind::gpipe), flushed = bubble(ScheduleKind::gpipe_flush),
               plain = bubble(ScheduleKind::one_f_one_b), interleaved = bubble(ScheduleKind::interleaved),
               zero = bubble(ScheduleKind::zero_bubble), dualpipe = bubble(ScheduleKind::dualpipe_v);
  EXPECT_NEAR(gpipe, 3.0 / 11, 1e-12);   // (ranks - 1) / (micro-batches + ranks - 1)
  EXPECT_NEAR(plain, gpipe, 1e-12);      // the same bubble; its gain is memory
  EXPECT_NEAR(flushed, 3.0 / 7, 1e-12);  // GPipe within that memory: (ranks - 1) / (2 ranks - 1)
  EXPECT_LT(plain, flushed);
  EXPECT_LT(interleaved, plain);
  EXPECT_LT(zero, interleaved);
  EXPECT_LT(dualpipe, interleaved);
}

// Bytes of tensors that are alive, of one rank.
struct Bytes {
  std::int64_t now = 0, most = 0;
  Tensor make(std::int64_t count) {
    auto* const data = new double[static_cast<std::size_t>(count)]();
    now += count * 8;
    most = std::max(most, now);
    return at::from_blob(
        data, {count},
        [this, count, data](void*) {
          delete[] data;
          now -= count * 8;
        },
        at::kDouble);
  }
};
struct BytesHolder : torch::CustomClassHolder {
  Bytes* bytes = nullptr;
};

// Keeps `kWhole` elements from the forward pass to the gradient of the input, and half of them to that of the
// weights.
struct Keep : torch::autograd::Function<Keep> {
  static constexpr std::int64_t kWhole = 1 << 14;
  static Tensor forward(AutogradContext* ctx, const Tensor& x,
                        const c10::intrusive_ptr<BytesHolder>& holder) {
    ctx->save_for_backward({holder->bytes->make(kWhole / 2), holder->bytes->make(kWhole / 2)});
    return x + 1;
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    if (auto* later = WeightWork::current()) later->add([kept = ctx->get_saved_variables()[0]] {});
    return {grads[0], Tensor()};
  }
};

class KeepingStage : public StageModule {
 public:
  KeepingStage(Bytes& bytes, const Schedule& schedule, int rank)
      : bytes_(bytes), schedule_(schedule), rank_(rank) {}
  // Messages are counted too: small against what a stage keeps.
  StageFlow empty_flow(int) const override { return {bytes_.make(kMessage)}; }
  StageResult forward(int chunk, int, const StageFlow& in) override {
    auto holder = c10::make_intrusive<BytesHolder>();
    holder->bytes = &bytes_;
    const auto x = in.empty() ? at::zeros({kMessage}, at::kDouble).requires_grad_() : in[0];
    const auto y = Keep::apply(x, holder);
    if (schedule_.stage_of(rank_, chunk) + 1 < schedule_.stages()) return {{y}, {}};
    return {{}, y.sum()};
  }
  static constexpr std::int64_t kMessage = 64;

 private:
  Bytes& bytes_;
  const Schedule& schedule_;
  int rank_;
};

TEST(Pipeline, MemoryIsThatOfTheFormula) {
  for (const auto kind : schedule_kinds()) {
    const auto schedule = make_schedule(kind, 4, 12, 2);
    const double whole = Keep::kWhole * 8;
    const auto formula = peak_activations(
        schedule,
        {{.forward = 1, .backward_input = 1, .backward_weight = 1, .activation = whole, .kept = whole / 2}});
    std::vector<Bytes> bytes(4);
    test::on_ranks(4, [&](const GroupPtr& group) {
      KeepingStage stage(bytes[static_cast<std::size_t>(group->rank())], schedule, group->rank());
      run_pipeline(schedule, group, stage);
    });
    for (std::size_t r = 0; r < 4; ++r) {
      EXPECT_GE(static_cast<double>(bytes[r].most), formula[r]) << schedule_name(kind) << " rank " << r;
      EXPECT_LE(static_cast<double>(bytes[r].most), 1.1 * formula[r]) << schedule_name(kind) << " rank " << r;
      EXPECT_EQ(bytes[r].now, 0);
    }
  }
}

TEST(Pipeline, AFailureOnOneRankIsHeardOnAll) {
  const auto schedule = make_schedule(ScheduleKind::one_f_one_b, 2, 4);
  class Broken : public StageModule {
   public:
    StageFlow empty_flow(int) const override { return {at::zeros({1})}; }
    StageResult forward(int, int micro_batch, const StageFlow& in) override {
      if (!in.empty() && micro_batch == 1) throw std::runtime_error("broken");
      return {{at::ones({1}).requires_grad_()}, {}};
    }
  };
  EXPECT_THROW(test::on_ranks(2,
                              [&](const GroupPtr& group) {
                                Broken stage;
                                run_pipeline(schedule, group, stage);
                              }),
               std::runtime_error);
}

TEST(Pipeline, EvaluatesWithForwardPassesAlone) {
  for (const auto kind : schedule_kinds()) {
    const auto schedule = make_schedule(kind, 2, 3, 2);
    std::vector<Clock> clocks(2);
    test::on_ranks(2, [&](const GroupPtr& group) {
      auto& clock = clocks[static_cast<std::size_t>(group->rank())];
      ClockStage stage(clock, schedule, group->rank());
      run_pipeline_forward(schedule, group, stage);
      EXPECT_EQ(stage.finished, 0);
      EXPECT_EQ(clock.busy, 3 * schedule.chunks);
    });
  }
}

}  // namespace
}  // namespace sinew
