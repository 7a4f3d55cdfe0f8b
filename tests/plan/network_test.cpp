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
    const double biases = static_cast<double>(
        config.moe.topk_method == TopkMethod::noaux_tc
            ? config.moe.n_routed_experts * (config.num_hidden_layers - config.moe.first_k_dense_replace)
            : 0);
    EXPECT_NEAR(mine.total, static_cast<double>(exact.total), biases) << preset;
    EXPECT_NEAR(mine.active, static_cast<double>(exact.active), biases) << preset;
    EXPECT_NEAR(mine.mtp, static_cast<double>(exact.mtp), biases) << preset;
    EXPECT_NEAR(model_flops_per_token(network, 4096), train_flops_per_token(config, 4096),
                1e-3 * train_flops_per_token(config, 4096))
        << preset;
  }
}

}  // namespace
}  // namespace sinew::plan
