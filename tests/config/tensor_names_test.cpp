#include "config/tensor_names.hpp"

#include <gtest/gtest.h>

#include "model/tiny_models.hpp"

namespace sinew {
namespace {

TEST(TensorNames, SayLayerAndExpert) {
  EXPECT_EQ(layer_of("model.layers.12.mlp.experts.7.up_proj.weight"), 12);
  EXPECT_EQ(expert_of("model.layers.12.mlp.experts.7.up_proj.weight"), 7);
  EXPECT_EQ(layer_of("model.norm.weight"), std::nullopt);
  EXPECT_EQ(layer_of("model.layers.x"), std::nullopt);
  EXPECT_EQ(expert_of("model.layers.1.mlp.shared_experts.up_proj.weight"), std::nullopt);
  EXPECT_EQ(unit_name("model.layers.3.input_layernorm.weight"), "layer 3");
  EXPECT_EQ(unit_name("model.embed_tokens.weight"), "embedding");
  EXPECT_EQ(unit_name("lm_head.weight"), "head");
}

TEST(TensorNames, TensorParallelismCutsMatricesOutsideExperts) {
  for (const auto& config : {test::tiny_llama(), test::tiny_mixtral(), test::tiny_deepseek_v3()})
    for (const auto& spec : tensor_specs(config)) {
      const auto cut = tensor_cut(spec.name);
      if (!cut) continue;
      ASSERT_LT(*cut, spec.shape.size()) << spec.name;
      EXPECT_EQ(expert_of(spec.name), std::nullopt) << spec.name;
      const bool sums = spec.name.ends_with("o_proj.weight") || spec.name.ends_with("down_proj.weight");
      EXPECT_EQ(*cut, sums ? 1U : 0U) << spec.name;
    }
  EXPECT_EQ(tensor_cut("model.layers.0.self_attn.kv_a_proj_with_mqa.weight"), std::nullopt);
  EXPECT_EQ(tensor_cut("model.layers.0.mlp.gate.weight"), std::nullopt);
}

}  // namespace
}  // namespace sinew
