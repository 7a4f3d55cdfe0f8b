#include "plan/network.hpp"

#include <gtest/gtest.h>

#include "config/presets.hpp"

namespace sinew::plan {
namespace {

// The planner's counts are the trainer's: those of the tensor list.
TEST(Network, CountsEqualTheTensorList) {
  for (const std::string& preset : model_presets()) {
    const ModelConfig config = load_model_config(preset);
    const Network network = network_from(config, preset);
    const ParameterCounts exact = count_parameters(config);
    const NetworkCounts mine = count(network);
    EXPECT_EQ(mine.total, static_cast<double>(exact.total)) << preset;
    EXPECT_EQ(mine.active, static_cast<double>(exact.active)) << preset;
    EXPECT_EQ(mine.mtp, static_cast<double>(exact.mtp)) << preset;
    EXPECT_NEAR(model_flops_per_token(network, 4096), train_flops_per_token(config, 4096),
                1e-3 * train_flops_per_token(config, 4096))
        << preset;
  }
}

// Layers that no period describes, and biases.
TEST(Network, CountsOfOddModels) {
  ModelConfig c = load_model_config("qwen3-30b-a3b");
  c.moe.decoder_sparse_step = 3;
  c.moe.mlp_only_layers = {2, 11};
  c.attention_bias = true;
  const Network network = network_from(c, "odd");
  EXPECT_EQ(count(network).total, static_cast<double>(count_parameters(c).total));
  EXPECT_EQ(count(network).active, static_cast<double>(count_parameters(c).active));
  for (std::int64_t l = 0; l < c.num_hidden_layers; ++l)
    EXPECT_EQ(network.is_moe(l), c.ffn_kind(l) == FfnKind::moe) << l;
}

}  // namespace
}  // namespace sinew::plan
