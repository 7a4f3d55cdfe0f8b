// A layout says where, never what: losses, loads, gradients and weights of every layout are those of one
// process.
#include <gtest/gtest.h>

#include <cmath>

#include "model/tiny_models.hpp"
#include "parallel/tiny_training.hpp"

namespace sinew {
namespace {

using test::TinyRun;
using test::WholeState;

struct Reference {
  test::TinyResult result;
  WholeState state;
};

Reference alone(const TinyRun& run) {
  Reference out;
  out.result = test::train_tiny(run, nullptr, [&](const LanguageModel&, const Optimizer& optimizer) {
    out.state = test::whole_state(optimizer);
  });
  return out;
}

void expect_near(double got, double want, double relative, const std::string& what) {
  EXPECT_LE(std::abs(got - want), relative * std::max(std::abs(want), 1e-3))
      << what << ": " << got << " for " << want;
}

void expect_same(const Reference& want, const TinyRun& run, Layout layout) {
  const int size = static_cast<int>(layout.size());
  SCOPED_TRACE(run.config.model_type + " " + layout_name(layout));
  test::run_ranks(
      size,
      [&](const std::shared_ptr<Endpoint>& endpoint) {
        const auto mesh = std::make_shared<Mesh>(endpoint, layout);
        double worst = 0;
        const auto got = test::train_tiny(run, mesh, [&](const LanguageModel&, const Optimizer& optimizer) {
          worst = test::state_difference(optimizer, want.state);
        });
        EXPECT_LE(worst, 1e-4) << "rank " << endpoint->rank();
        for (std::size_t i = 0; i < got.losses.size(); ++i) {
          const auto &a = got.losses[i], &b = want.result.losses[i];
          expect_near(a.total, b.total, 1e-5, "total");
          expect_near(a.cross_entropy, b.cross_entropy, 1e-5, "cross-entropy");
          expect_near(a.balance, b.balance, 1e-5, "balance");
          expect_near(a.z, b.z, 1e-5, "z");
          expect_near(a.mtp, b.mtp, 1e-5, "mtp");
          expect_near(got.norms[i], want.result.norms[i], 1e-4, "norm");
          ASSERT_EQ(a.loads.size(), b.loads.size());
          for (std::size_t l = 0; l < a.loads.size(); ++l) {
            EXPECT_EQ(a.loads[l].layer, b.loads[l].layer);
            EXPECT_TRUE(a.loads[l].counts.equal(b.loads[l].counts));
          }
        }
      },
      static_cast<int>(layout.ranks_per_node));
}

TinyRun v2() {
  TinyRun run{.config = test::tiny_deepseek_v2()};
  run.balance.expert_alpha = 0.01;
  run.balance.z_alpha = 0.001;
  return run;
}
TinyRun v3() {
  TinyRun run{.config = test::tiny_deepseek_v3(), .micro = 4};
  run.balance.expert_alpha = 0.01;
  run.balance.sequence_wise = true;
  run.mask_documents = true;
  return run;
}
TinyRun mixtral() {
  TinyRun run{.config = test::tiny_mixtral(), .micro = 4};
  run.balance.joint_alpha = 0.02;
  return run;
}

TEST(Layouts, DataAndShardedData) {
  const auto a = v2(), b = v3(), c = mixtral();
  const auto want_a = alone(a), want_b = alone(b), want_c = alone(c);
  expect_same(want_a, a, {.data = 4});
  expect_same(want_a, a, {.data = 1, .shard = 4, .zero = 1});
  expect_same(want_a, a, {.data = 1, .shard = 4, .zero = 2});
  expect_same(want_a, a, {.data = 1, .shard = 8, .zero = 3});
  expect_same(want_b, b, {.data = 2, .shard = 2, .zero = 3});
  expect_same(want_c, c, {.data = 2, .shard = 2, .zero = 2});
  expect_same(want_c, c, {.data = 1, .shard = 2, .zero = 3});
}

TEST(Layouts, Experts) {
  const auto a = v2(), b = v3(), c = mixtral();
  const auto want_a = alone(a), want_b = alone(b), want_c = alone(c);
  expect_same(want_a, a, {.data = 8, .expert = 8});
  expect_same(want_a, a, {.data = 1, .shard = 4, .zero = 3, .expert = 2});
  expect_same(want_b, b, {.data = 4, .expert = 4});
  expect_same(want_b, b, {.data = 2, .shard = 2, .zero = 2, .expert = 2});
  expect_same(want_c, c, {.data = 2, .expert = 2});
}

TEST(Layouts, NodeLimitedDispatch) {
  const auto a = v2(), b = v3();
  const auto want_a = alone(a), want_b = alone(b);
  expect_same(want_a, a, {.data = 8, .expert = 8, .ranks_per_node = 4, .node_limit = 2});
  expect_same(want_b, b, {.data = 4, .expert = 4, .ranks_per_node = 1, .node_limit = 2});
}

// Muon works on whole matrices: their pieces are gathered for it.
TEST(Layouts, MuonOfPieces) {
  auto run = v2();
  run.optimizer.kind = "muon";
  const auto want = alone(run);
  expect_same(want, run, {.data = 2});
  expect_same(want, run, {.data = 1, .shard = 4, .zero = 3, .expert = 2});
}

// .. and parts of them that the tensor group holds, whose pieces begin elsewhere on each member.
TEST(Layouts, MuonOfMatricesThatAreCut) {
  auto a = v2(), c = mixtral();
  a.optimizer.kind = c.optimizer.kind = "muon";
  a.config.intermediate_size += 1;  // parts of different sizes
  const auto want = alone(a);
  expect_same(want, a, {.data = 1, .tensor = 2});
  expect_same(want, a, {.data = 1, .shard = 2, .zero = 3, .tensor = 2, .expert = 2});
  expect_same(alone(c), c, {.data = 1, .shard = 2, .zero = 1, .tensor = 2, .pipeline = 2});
}

// Every token chooses the experts of one process: the others get none, and nobody waits for ever.
TEST(Layouts, AProcessWithoutTokensTakesPart) {
  auto run = v2();
  run.config.moe.topk_method = TopkMethod::greedy;
  run.config.moe.num_experts_per_tok = 1;
  run.config.initializer_range = 0;  // all scores are equal: expert 0 is chosen
  const auto want = alone(run);
  EXPECT_GT(want.result.losses[0].loads[0].counts[0].item<std::int64_t>(), 0);
  EXPECT_EQ(want.result.losses[0].loads[0].counts[7].item<std::int64_t>(), 0);
  expect_same(want, run, {.data = 4, .expert = 4});
  expect_same(want, run, {.data = 1, .shard = 4, .zero = 3, .expert = 4});
  expect_same(want, run, {.data = 4, .expert = 4, .ranks_per_node = 2, .node_limit = 2});
}

TEST(Layouts, PipelineTensorAndContext) {
  const auto a = v2(), b = v3(), c = mixtral();
  const auto want_a = alone(a), want_b = alone(b), want_c = alone(c);
  expect_same(want_b, b, {.data = 1, .tensor = 2, .pipeline = 2, .expert = 2});
  expect_same(want_c, c, {.data = 2, .tensor = 2, .expert = 2});
  expect_same(want_a, a, {.data = 1, .context = 4});
  expect_same(want_b, b, {.data = 2, .pipeline = 2, .schedule = "zero-bubble"});
  expect_same(want_c, c, {.data = 1, .shard = 2, .zero = 1, .pipeline = 2, .schedule = "gpipe"});
}

// Weight gradients that are left for later, of units whose weights and gradients come and go.
TEST(Layouts, SplitBackwardPassesUnderShardedState) {
  const auto b = v3();
  const auto want = alone(b);
  expect_same(want, b, {.data = 1, .shard = 2, .zero = 3, .pipeline = 2, .schedule = "zero-bubble"});
  auto deep = v3();
  deep.config.num_hidden_layers = 4;
  expect_same(alone(deep), deep, {.data = 1, .shard = 2, .zero = 2, .pipeline = 2, .schedule = "dualpipe-v"});
}

}  // namespace
}  // namespace sinew
