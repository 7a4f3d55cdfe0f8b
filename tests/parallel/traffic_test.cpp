// What node-limited dispatch in 8 bits saves between nodes.
#include <gtest/gtest.h>

#include "model/tiny_models.hpp"
#include "parallel/tiny_training.hpp"

namespace sinew {
namespace {

using test::TinyRun;

// Eight nodes of one process, tokens to at most two of them, eight experts a token.
TinyRun eight_nodes() {
  TinyRun run{.config = test::tiny_deepseek_v2(), .sequence = 8, .dtype = at::kBFloat16};
  auto& c = run.config;
  c.hidden_size = 256;
  c.num_hidden_layers = 2;
  c.moe.n_routed_experts = 64;
  c.moe.num_experts_per_tok = 8;
  c.moe.n_group = 8;
  c.moe.topk_group = 2;
  c.initializer_range = 0.05;
  run.steps = 1;
  return run;
}

// That all processes send in all-to-alls.
std::int64_t between_nodes(const Layout& layout, const char* group) {
  const auto run = eight_nodes();
  std::atomic<std::int64_t> sum{0};
  test::run_ranks(
      8,
      [&](const std::shared_ptr<Endpoint>& endpoint) {
        const auto mesh = std::make_shared<Mesh>(endpoint, layout);
        test::train_tiny(run, mesh, [](const LanguageModel&, const Optimizer&) {});
        const auto t = endpoint->traffic().of(group, "all_to_all");
        EXPECT_EQ(t.inter_bytes, t.bytes());
        sum += t.bytes();
      },
      1);
  return sum;
}

TEST(Traffic, NodeLimitedFp8DispatchCutsBytesBetweenNodes) {
  Layout layout{.data = 8, .expert = 8, .ranks_per_node = 1};
  const auto in_bf16 = static_cast<double>(between_nodes(layout, "expert"));
  layout.node_limit = 2;
  layout.dispatch = "fp8";
  const auto in_fp8 = static_cast<double>(between_nodes(layout, "expert_across_nodes"));
  EXPECT_GE(in_bf16, 3.0 * in_fp8);
  RecordProperty("ratio", fmt::format("{:.2f}", in_bf16 / in_fp8));
}

}  // namespace
}  // namespace sinew
