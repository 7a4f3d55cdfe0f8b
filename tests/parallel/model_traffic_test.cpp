// Counted bytes of the tensor, context and pipeline axes are those of docs/communication.md.
#include <gtest/gtest.h>

#include "config/traffic_formulas.hpp"
#include "model/tiny_models.hpp"
#include "parallel/tiny_training.hpp"

namespace sinew {
namespace {

using test::TinyRun;

constexpr std::int64_t kWidth = 4;  // fp32

TinyRun one_step(const ModelConfig& config) {
  TinyRun run{.config = config};
  run.steps = 1;
  run.micro = 4;  // two micro-batches
  return run;
}

void on_layout(const TinyRun& run, const Layout& layout,
               const std::function<void(const Mesh&, TrafficCounters&)>& check) {
  test::run_ranks(static_cast<int>(layout.size()), [&](const std::shared_ptr<Endpoint>& endpoint) {
    const auto mesh = std::make_shared<Mesh>(endpoint, layout);
    test::train_tiny(run, mesh, [](const LanguageModel&, const Optimizer&) {});
    check(*mesh, endpoint->traffic());
  });
}

// Numbers a token that are gathered on the way in and scattered on the way out, over the whole network.
struct Widths {
  std::int64_t gathered = 0, scattered = 0;
};
Widths widths(const ModelConfig& c) {
  Widths w;
  const auto depths = c.num_nextn_predict_layers, layers = c.num_hidden_layers + depths;
  for (std::int64_t l = 0; l < layers; ++l) {
    w.gathered += c.attention == Attention::mla
                      ? c.q_lora_rank.value_or(c.hidden_size) + c.kv_lora_rank + c.qk_rope_head_dim
                      : c.hidden_size;
    w.scattered += c.hidden_size;
    if (c.ffn_kind(l) == FfnKind::moe) continue;
    w.gathered += c.hidden_size;
    w.scattered += c.hidden_size;
  }
  w.scattered += (1 + depths) * c.hidden_size;  // embedding
  w.gathered += (1 + depths) * c.hidden_size;   // head
  return w;
}

TEST(ModelTraffic, OfTheTensorAxis) {
  for (auto config : {test::tiny_llama(), test::tiny_deepseek_v2(), test::tiny_deepseek_v3()}) {
    auto run = one_step(config);
    run.balance.expert_alpha = config.moe.n_routed_experts > 0 ? 0.01 : 0;
    on_layout(run, {.data = 1, .tensor = 2}, [&](const Mesh& mesh, TrafficCounters& traffic) {
      const auto w = widths(config);
      const std::int64_t passes = run.rows / run.micro, tokens = run.micro * run.sequence, own = tokens / 2;
      // Each is the other's backward pass.
      const auto moved = passes * own * (w.gathered + w.scattered);
      EXPECT_EQ(traffic.of("tensor", "all_gather").bytes(), all_gather_bytes(moved, 2, kWidth));
      EXPECT_EQ(traffic.of("tensor", "reduce_scatter").bytes(), reduce_scatter_bytes(moved, 2, kWidth));
      const int rank = mesh.position(Axis::tensor);
      const auto heads = 1 + config.num_nextn_predict_layers;
      // With multi-token prediction and rows that are cut, the last token still takes part.
      EXPECT_EQ(
          traffic.of("tensor", "all_reduce").bytes(),
          passes * heads *
              (all_reduce_bytes(tokens, 2, rank, kWidth) + all_reduce_bytes(2 * tokens, 2, rank, kWidth)));
      std::int64_t moe = 0;
      for (std::int64_t l = 0; l < config.num_hidden_layers + config.num_nextn_predict_layers; ++l)
        moe += config.ffn_kind(l) == FfnKind::moe ? 1 : 0;
      EXPECT_EQ(traffic.of("context+tensor", "all_reduce").bytes(),
                moe == 0
                    ? 0
                    : passes * all_reduce_bytes(moe * run.micro * config.moe.n_routed_experts, 2, rank, 8));
    });
  }
}

TEST(ModelTraffic, OfTheContextAxis) {
  for (auto config : {test::tiny_llama(), test::tiny_deepseek_v3()}) {
    const auto run = one_step(config);
    const std::int64_t c = 4;
    on_layout(run, {.data = 1, .context = c}, [&](const Mesh&, TrafficCounters& traffic) {
      const auto kv =
          config.attention == Attention::mla ? config.num_attention_heads : config.num_key_value_heads;
      const auto layers = config.num_hidden_layers + config.num_nextn_predict_layers;
      const auto ring =
          run.micro * (run.sequence / c) * kv * (config.qk_head_dim() + config.value_head_dim());
      EXPECT_EQ(traffic.of("context", "send").bytes(),
                run.rows / run.micro * layers * ((c - 1) * ring + (c - 1) * ring + c * ring) * kWidth);
    });
  }
}

TEST(ModelTraffic, OfThePipelineAxis) {
  for (auto config : {test::tiny_deepseek_v3(), test::tiny_mixtral()}) {
    auto run = one_step(config);
    const bool joint = config.model_type == "mixtral";
    if (joint) run.balance.joint_alpha = 0.02;
    on_layout(run, {.data = 1, .tensor = 2, .pipeline = 2}, [&](const Mesh&, TrafficCounters& traffic) {
      const auto hidden = run.micro * run.sequence / 2 * config.hidden_size;
      const auto sums = joint ? 2 * config.moe.n_routed_experts + 1 : 0;
      // Activations one way, their gradients the other.
      EXPECT_EQ(traffic.of("pipeline", "send").bytes(), run.rows / run.micro * (hidden + sums) * kWidth);
    });
  }
}

}  // namespace
}  // namespace sinew
