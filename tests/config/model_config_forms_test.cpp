// The spellings and shapes that public config.json files come in.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>

#include "config/model_config.hpp"
#include "config/rope.hpp"
#include "support/support.hpp"

namespace sinew {
namespace {

using nlohmann::json;
using Shape = std::vector<std::int64_t>;

ModelConfig patched(const std::string& name, const std::string& patch) {
  auto config = json::parse(test::slurp(test::source_path("configs/models/" + name + "/config.json")));
  config.merge_patch(json::parse(patch));
  return parse_model_config(config.dump());
}

std::map<std::string, Shape> shapes(const ModelConfig& config) {
  std::map<std::string, Shape> all;
  for (const auto& spec : tensor_specs(config))
    EXPECT_TRUE(all.emplace(spec.name, spec.shape).second) << spec.name;
  return all;
}

TEST(ModelConfigForms, GoldenConfigs) {
  SINEW_NEED_DATA();
  for (const auto& entry : test::fs::directory_iterator(test::data_dir() / "golden")) {
    if (!test::fs::is_directory(entry)) continue;
    const auto config = load_model_config(entry.path());
    EXPECT_EQ(parse_model_config(write_model_config(config)), config) << entry.path();
    // The header of a safetensors file: 8 bytes of length, then JSON.
    const auto file = test::slurp(entry.path() / "model.safetensors");
    std::uint64_t length = 0;
    std::memcpy(&length, file.data(), 8);
    auto header = json::parse(file.substr(8, length));
    header.erase("__metadata__");
    const auto specs = shapes(config);
    EXPECT_EQ(specs.size(), header.size());
    for (const auto& [name, shape] : specs) {
      ASSERT_TRUE(header.contains(name)) << name;
      EXPECT_EQ(header[name]["shape"].get<Shape>(), shape) << name;
    }
  }
}

TEST(ModelConfigForms, DeepseekV3WithItsExtraLayer) {
  const auto config = load_model_config("deepseek-v3");
  EXPECT_EQ(config.moe.scoring_func, ScoringFunc::sigmoid);
  EXPECT_EQ(config.moe.topk_method, TopkMethod::noaux_tc);
  EXPECT_EQ(config.rope_layout, RopeLayout::interleaved);
  const auto all = shapes(config);
  EXPECT_EQ(all.at("model.layers.3.mlp.gate.e_score_correction_bias"), Shape{256});
  EXPECT_EQ(all.at("model.layers.2.mlp.gate_proj.weight"), (Shape{18432, 7168}));
  EXPECT_EQ(all.at("model.layers.61.eh_proj.weight"), (Shape{7168, 14336}));
  EXPECT_EQ(all.at("model.layers.61.shared_head.norm.weight"), Shape{7168});
  EXPECT_EQ(all.at("model.layers.61.mlp.experts.255.down_proj.weight"), (Shape{7168, 2048}));
  EXPECT_FALSE(all.contains("model.layers.61.embed_tokens.weight")) << "a shared copy";
  EXPECT_EQ(tensor_specs(config).front().name, "model.embed_tokens.weight");
  EXPECT_EQ(tensor_specs(config).back().name, "model.layers.61.shared_head.norm.weight");
  for (const auto& spec : tensor_specs(config))
    EXPECT_EQ(spec.buffer, spec.name.ends_with("e_score_correction_bias"));
}

TEST(ModelConfigForms, DeepseekV3AsTransformersWritesIt) {
  // transformers' own class has no scoring_func, topk_method or moe_layer_freq, and its defaults.
  const auto config =
      patched("deepseek-v3", R"({"scoring_func": null, "topk_method": null, "moe_layer_freq": null,
    "seq_aux": null, "norm_topk_prob": null, "routed_scaling_factor": null, "n_group": null, "topk_group": null,
    "first_k_dense_replace": null, "head_dim": 64, "qk_head_dim": 192, "rope_interleave": true})");
  EXPECT_EQ(config, load_model_config("deepseek-v3"));
}

TEST(ModelConfigForms, TransformersFiveSpellings) {
  const auto v5 = patched("deepseek-v2", R"({"rope_theta": null, "rope_scaling": null, "torch_dtype": null,
    "dtype": "bfloat16", "rope_parameters": {"rope_theta": 10000.0, "rope_type": "yarn", "factor": 40,
      "original_max_position_embeddings": 4096, "beta_fast": 32, "beta_slow": 1, "mscale": 0.707,
      "mscale_all_dim": 0.707}})");
  EXPECT_EQ(v5, load_model_config("deepseek-v2"));
  const auto written = json::parse(write_model_config(v5));
  EXPECT_EQ(written["rope_theta"], 10000.0);
  EXPECT_EQ(written["rope_scaling"]["type"], "yarn");
  EXPECT_EQ(written["rope_scaling"]["rope_type"], "yarn");
  EXPECT_EQ(written["rope_parameters"]["rope_type"], "yarn");
  EXPECT_EQ(written["rope_parameters"]["rope_theta"], 10000.0);
  EXPECT_EQ(written["torch_dtype"], written["dtype"]);
  EXPECT_EQ(written["architectures"], json({"DeepseekV2ForCausalLM"}));
}

TEST(ModelConfigForms, DenseDeepseek) {
  const auto config = patched("deepseek-v2-lite", R"({"n_routed_experts": null})");
  EXPECT_EQ(config.moe, MoeConfig{});
  for (std::int64_t l = 0; l < config.num_hidden_layers; ++l) EXPECT_EQ(config.ffn_kind(l), FfnKind::dense);
  EXPECT_EQ(count_parameters(config).total, count_parameters(config).active);
}

TEST(ModelConfigForms, QwenDenseLayers) {
  const auto config = patched("qwen3-30b-a3b", R"({"decoder_sparse_step": 2, "mlp_only_layers": [3, 5]})");
  for (std::int64_t l = 0; l < 48; ++l)
    EXPECT_EQ(config.ffn_kind(l), l % 2 == 1 && l != 3 && l != 5 ? FfnKind::moe : FfnKind::dense) << l;
  const auto all = shapes(config);
  EXPECT_EQ(all.at("model.layers.3.mlp.gate_proj.weight"), (Shape{6144, 2048}));
  EXPECT_EQ(all.at("model.layers.1.mlp.gate.weight"), (Shape{128, 2048}));
  EXPECT_EQ(all.at("model.layers.1.self_attn.q_norm.weight"), Shape{128});
  EXPECT_EQ(all.at("model.layers.1.self_attn.k_proj.weight"), (Shape{512, 2048}));
}

TEST(ModelConfigForms, DeepseekMoeLayerFrequency) {
  const auto config = patched("deepseek-v2-lite", R"({"moe_layer_freq": 3, "first_k_dense_replace": 4})");
  for (std::int64_t l = 0; l < 27; ++l)
    EXPECT_EQ(config.ffn_kind(l), l >= 4 && l % 3 == 0 ? FfnKind::moe : FfnKind::dense) << l;
}

TEST(ModelConfigForms, LlamaTiedBiasedAndOddShaped) {
  const auto config =
      patched("llama-3.1-8b", R"({"tie_word_embeddings": true, "attention_bias": true, "head_dim": 64,
    "rope_scaling": {"rope_type": "linear", "factor": 4}, "eos_token_id": [128001, 128008, 128009]})");
  const auto all = shapes(config);
  EXPECT_FALSE(all.contains("lm_head.weight"));
  EXPECT_EQ(all.at("model.layers.0.self_attn.q_proj.weight"), (Shape{2048, 4096}));
  EXPECT_EQ(all.at("model.layers.0.self_attn.k_proj.bias"), Shape{512});
  EXPECT_EQ(config.rope_linear_factor, 4);
  EXPECT_FALSE(config.llama3);
  EXPECT_EQ(config.eos_token_ids, (Shape{128001, 128008, 128009}));
  EXPECT_EQ(parse_model_config(write_model_config(config)), config);
  EXPECT_EQ(patched("llama-3.1-8b", R"({"num_key_value_heads": null})").num_key_value_heads, 32);
}

TEST(ModelConfigForms, WindowsWiderThanTheTextAreNoWindows) {
  EXPECT_EQ(patched("mixtral-8x7b", R"({"sliding_window": 32768})"), load_model_config("mixtral-8x7b"));
  EXPECT_EQ(patched("qwen3-30b-a3b", R"({"sliding_window": 4096})"), load_model_config("qwen3-30b-a3b"));
}

TEST(Rope, PlainAndLinear) {
  const auto plain = rope_frequencies(load_model_config("mixtral-8x7b"));
  ASSERT_EQ(plain.size(), 64u);
  EXPECT_DOUBLE_EQ(plain[0], 1);
  EXPECT_DOUBLE_EQ(plain[32], 1e-3);
  const auto linear =
      rope_frequencies(patched("mixtral-8x7b", R"({"rope_scaling": {"type": "linear", "factor": 8}})"));
  for (std::size_t j = 0; j < 64; ++j) EXPECT_DOUBLE_EQ(linear[j], plain[j] / 8);
}

// Expected: YaRN's find_correction_dim gives dims 10.5 and 22.5 for 32 and 1 turns in 4096 at theta 1e4 and
// 64 elements, so the ramp runs from pair 10 to pair 23.
TEST(Rope, YarnKeepsFastPairsAndStretchesSlowOnes) {
  const auto config = load_model_config("deepseek-v2");
  const auto yarn = rope_frequencies(config);
  ASSERT_EQ(yarn.size(), 32u);
  const auto plain = [](std::size_t j) { return std::pow(1e4, -static_cast<double>(j) / 32); };
  for (std::size_t j = 0; j <= 10; ++j) EXPECT_DOUBLE_EQ(yarn[j], plain(j));
  for (std::size_t j = 23; j < 32; ++j) EXPECT_DOUBLE_EQ(yarn[j], plain(j) / 40);
  EXPECT_NEAR(yarn[17], plain(17) * (7.0 / 13 / 40 + 6.0 / 13), 1e-15);
  EXPECT_DOUBLE_EQ(rope_attention_factor(config), 1);
  const auto bare = patched("qwen3-30b-a3b", R"({"rope_scaling": {"rope_type": "yarn", "factor": 4,
    "original_max_position_embeddings": 32768}})");
  EXPECT_DOUBLE_EQ(rope_attention_factor(bare), 0.1 * std::log(4) + 1);
  EXPECT_DOUBLE_EQ(bare.softmax_scale(), 1 / std::sqrt(128.0)) << "only latent attention scales its scores";
}

TEST(Rope, Llama3KeepsShortWavesAndDividesLongOnes) {
  const auto frequencies = rope_frequencies(load_model_config("llama-3.1-8b"));
  ASSERT_EQ(frequencies.size(), 64u);
  for (std::size_t j = 0; j < 64; ++j) {
    const double plain = std::pow(5e5, -static_cast<double>(j) / 64), turns = 8192 * plain / (2 * M_PI);
    if (turns > 4) {
      EXPECT_DOUBLE_EQ(frequencies[j], plain);
    } else if (turns < 1) {
      EXPECT_DOUBLE_EQ(frequencies[j], plain / 8);
    } else {
      EXPECT_NEAR(frequencies[j], plain * ((4 - turns) / 3 / 8 + (turns - 1) / 3), 1e-15);
    }
  }
}

TEST(ModelConfig, TrainingFlops) {
  // Llama-shaped by hand: matrices of one layer 4 h^2 + 3 h i, head v h.
  const auto config = load_model_config("llama-124m");
  const double h = 768, i = 2048, layers = 12, vocab = 50304;
  const double matrices = layers * (4 * h * h + 3 * h * i) + vocab * h;
  EXPECT_DOUBLE_EQ(train_flops_per_token(config, 1024), 6 * matrices + layers * 6 * h * 1024);
  // A mixture counts the experts that a token visits.
  const auto mixtral = load_model_config("mixtral-8x7b");
  const auto counts = count_parameters(mixtral);
  const double norms = (2 * 32 + 1) * 4096, embedding = 32000.0 * 4096;
  EXPECT_DOUBLE_EQ(train_flops_per_token(mixtral, 0),
                   6 * (static_cast<double>(counts.active) - norms - embedding));
}

}  // namespace
}  // namespace sinew
