#include "config/layout.hpp"

#include <gtest/gtest.h>

#include "base/error.hpp"
#include "config/presets.hpp"
#include "config/run_config.hpp"

namespace sinew {
namespace {

ModelConfig small() {
  return parse_model_config(R"({"model_type": "deepseek_v3", "vocab_size": 512, "hidden_size": 64,
    "intermediate_size": 128, "moe_intermediate_size": 32, "num_hidden_layers": 6, "num_attention_heads": 8,
    "num_key_value_heads": 8, "q_lora_rank": 24, "kv_lora_rank": 16, "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4, "v_head_dim": 8, "n_routed_experts": 16, "num_experts_per_tok": 4,
    "n_shared_experts": 1, "first_k_dense_replace": 1, "moe_layer_freq": 1, "n_group": 8, "topk_group": 2,
    "topk_method": "noaux_tc", "scoring_func": "sigmoid", "norm_topk_prob": true,
    "routed_scaling_factor": 2.5, "max_position_embeddings": 256, "rms_norm_eps": 1e-6,
    "rope_theta": 10000})");
}

std::string problem(const Layout& layout,
                    LayoutDemands demands = {.processes = 8, .batch = 16, .sequence = 64}) {
  try {
    check_layout(layout, demands, small());
  } catch (const UserError& error) {
    const std::string text = error.what();
    EXPECT_EQ(text.find('\n'), std::string::npos);
    return text;
  }
  return "";
}

TEST(Layout, FillsInWhatIsLeft) {
  const LayoutDemands demands{.processes = 8, .batch = 16, .micro_batch = 4, .sequence = 64};
  const Layout l = check_layout({.tensor = 2}, demands, small());
  EXPECT_EQ(l.data, 4);
  EXPECT_EQ(l.micro_batches, 4);
  EXPECT_EQ(l.ranks_per_node, 8);
  EXPECT_EQ(l.size(), 8);
}

TEST(Layout, OneProcessMayHaveASmallerLastMicroBatch) {
  const Layout l = check_layout({}, {.processes = 1, .batch = 10, .micro_batch = 4, .sequence = 64}, small());
  EXPECT_EQ(l.micro_batches, 3);
}

TEST(Layout, SaysTheRuleAndTheNearestChoice) {
  const auto has = [](const std::string& text, const std::string& part) {
    EXPECT_NE(text.find(part), std::string::npos) << text << " | lacks | " << part;
  };
  has(problem({.data = 2, .tensor = 2}), "nearest choice is layout.data = 4");
  has(problem({.tensor = 3}), "nearest number of processes is 9");
  has(problem({.data = 3, .tensor = 3}), "start 9");
  has(problem({.tensor = 8, .expert = 3}), "layout.expert = 3 does not divide the model's 16 experts");
  has(problem({.pipeline = 4, .expert = 4}), "the nearest choice is 2");
  has(problem({.pipeline = 8}), "more than the model's 6 layers; the nearest choice is layout.pipeline = 6");
  has(problem({.tensor = 6}, {.processes = 6, .batch = 16, .sequence = 96}),
      "does not divide the 8 attention heads; the nearest choice is 4");
  has(problem({}, {.processes = 8, .batch = 12, .sequence = 64}), "nearest choice is train.batch = 16");
  has(problem({}, {.processes = 2, .batch = 12, .micro_batch = 8, .sequence = 64}),
      "the nearest choice is train.micro_batch = 6");
  has(problem({}, {.processes = 3, .batch = 8, .micro_batch = 4, .sequence = 64}),
      "the nearest choice is train.batch = 9 with train.micro_batch = 3");
  EXPECT_EQ(problem({}, {.processes = 3, .batch = 9, .micro_batch = 3, .sequence = 64}), "");
  has(problem({.context = 8}, {.processes = 8, .batch = 8, .sequence = 60}), "the nearest choice is 64");
  has(problem({.ranks_per_node = 3}), "nearest choice is 2");
  has(problem({.expert = 8, .ranks_per_node = 1, .node_limit = 1}), "the nearest choice is 2");
  EXPECT_EQ(problem({.expert = 8, .ranks_per_node = 1, .node_limit = 2}), "");
  has(problem({.tensor = 2}, {.processes = 8, .batch = 16, .sequence = 64, .capacity_factor = 1}),
      "balance.capacity_factor");
}

TEST(Layout, ExpertsFollowTheShardAxis) {
  EXPECT_EQ((Layout{.data = 8, .expert = 2}).expert_shard(), 1);
  EXPECT_EQ((Layout{.data = 1, .shard = 8, .expert = 2}).expert_shard(), 4);
  EXPECT_EQ((Layout{.data = 2, .shard = 4, .expert = 2}).expert_shard(), 2);
  EXPECT_EQ((Layout{.data = 1, .shard = 8, .expert = 8}).expert_shard(), 1);
}

TEST(Layout, IsReadFromTheRunsFile) {
  RunConfig config;
  apply_toml(config, "[layout]\nshard = 4\nzero = 2\nschedule = \"zero-bubble\"\nexpert = 8\n", "a.toml");
  EXPECT_EQ(config.layout.shard, 4);
  EXPECT_EQ(config.layout.zero, 2);
  EXPECT_EQ(layout_name(config.layout), "shard=4 zero=2 expert=8");
  RunConfig again;
  apply_toml(again, to_toml(config), "b.toml");
  EXPECT_EQ(again.layout, config.layout);
}

}  // namespace
}  // namespace sinew
