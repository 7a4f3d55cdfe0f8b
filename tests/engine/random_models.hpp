// Small models with random weights of every family, written as Hugging Face directories.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/random.hpp"
#include "config/model_config.hpp"
#include "storage/safetensors.hpp"
#include "support/support.hpp"

namespace sinew::test {

inline nlohmann::json base_config(const std::string& family) {
  return {{"model_type", family},           {"vocab_size", 96},         {"hidden_size", 64},
          {"intermediate_size", 96},        {"num_hidden_layers", 3},   {"num_attention_heads", 4},
          {"max_position_embeddings", 256}, {"rms_norm_eps", 1e-5},     {"rope_theta", 10000.0},
          {"tie_word_embeddings", false},   {"torch_dtype", "float32"}, {"hidden_act", "silu"}};
}

// llama, qwen3_moe, mixtral, deepseek_v2, deepseek_v3 (with a multi-token-prediction layer). Heads and
// latents are multiples of 32, so that every cache type fits.
inline nlohmann::json random_config(const std::string& family) {
  auto json = base_config(family);
  if (family.starts_with("deepseek")) {
    json.update({{"num_key_value_heads", 4},
                 {"kv_lora_rank", 64},
                 {"qk_nope_head_dim", 16},
                 {"qk_rope_head_dim", 32},
                 {"v_head_dim", 16},
                 {"q_lora_rank", 32},
                 {"n_routed_experts", 8},
                 {"num_experts_per_tok", 3},
                 {"n_shared_experts", 2},
                 {"moe_intermediate_size", 32},
                 {"first_k_dense_replace", 1},
                 {"moe_layer_freq", 1},
                 {"n_group", 4},
                 {"topk_group", 2},
                 {"routed_scaling_factor", 1.5}});
    json["rope_scaling"] = {{"type", "yarn"},
                            {"factor", 4.0},
                            {"mscale", 1.0},
                            {"mscale_all_dim", 0.7},
                            {"beta_fast", 32},
                            {"beta_slow", 1},
                            {"original_max_position_embeddings", 64}};
    const bool v3 = family == "deepseek_v3";
    json["scoring_func"] = v3 ? "sigmoid" : "softmax";
    json["topk_method"] = v3 ? "noaux_tc" : "group_limited_greedy";
    json["norm_topk_prob"] = v3;
    if (v3) json["num_nextn_predict_layers"] = 1;
    return json;
  }
  json.update({{"num_key_value_heads", 2}, {"head_dim", 32}});
  if (family == "llama")
    json["rope_scaling"] = {{"rope_type", "llama3"},
                            {"factor", 8.0},
                            {"low_freq_factor", 1.0},
                            {"high_freq_factor", 4.0},
                            {"original_max_position_embeddings", 64}};
  if (family == "mixtral")
    json.update({{"num_local_experts", 4}, {"num_experts_per_tok", 2}, {"head_dim", 16}});
  if (family == "qwen3_moe")
    json.update({{"num_experts", 8},
                 {"num_experts_per_tok", 2},
                 {"moe_intermediate_size", 32},
                 {"norm_topk_prob", true},
                 {"decoder_sparse_step", 1},
                 {"mlp_only_layers", {1}}});
  return json;
}

inline void write_random_model(const fs::path& directory, const nlohmann::json& config_json) {
  fs::create_directories(directory);
  spit(directory / "config.json", config_json.dump());
  const ModelConfig config = load_model_config(directory);
  std::vector<TensorInfo> infos;
  for (const TensorSpec& spec : tensor_specs(config))
    infos.push_back({.name = spec.name, .dtype = DType::F32, .shape = spec.shape});
  SafetensorsWriter writer(directory / "model.safetensors", infos);
  for (const TensorInfo& info : infos) {
    std::vector<float> values(static_cast<std::size_t>(info.elements()));
    const bool norm = info.name.ends_with("norm.weight");
    Random(11, info.name).fill_normal(values.data(), 0, values.size(), norm ? 1 : 0, norm ? 0.2F : 0.15F);
    writer.write(values.data(), values.size() * sizeof(float));
  }
  writer.commit();
}

inline std::vector<std::int32_t> random_text(std::uint64_t seed, std::size_t length, std::uint64_t vocab) {
  std::vector<std::int32_t> ids;
  for (std::size_t i = 0; i < length; ++i)
    ids.push_back(static_cast<std::int32_t>(Random(seed, 3).below(i, vocab)));
  return ids;
}

}  // namespace sinew::test
