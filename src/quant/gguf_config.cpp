#include "quant/gguf_config.hpp"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "config/rope.hpp"

namespace sinew {
namespace {

using Json = nlohmann::ordered_json;

std::string architecture_of(const ModelConfig& c) {
  if (c.attention == Attention::mla) return "deepseek2";
  return c.model_type == "qwen3_moe" ? "qwen3moe" : "llama";
}

// Sets keys below the architecture's name.
class Keys {
 public:
  Keys(GgufMetadata& metadata, std::string architecture)
      : metadata_(metadata), architecture_(std::move(architecture)) {}
  void number(const char* key, std::int64_t value) {
    metadata_.set_u32(name(key), static_cast<std::uint32_t>(value));
  }
  void real(const char* key, double value) { metadata_.set_f32(name(key), static_cast<float>(value)); }
  void flag(const char* key, bool value) { metadata_.set_bool(name(key), value); }
  void text(const char* key, const char* value) { metadata_.set_string(name(key), value); }

 private:
  GgufMetadata& metadata_;
  std::string architecture_;
  std::string name(const char* key) const { return architecture_ + "." + key; }
};

void set_attention(Keys& keys, const ModelConfig& c, bool joined) {
  keys.number("attention.head_count", c.num_attention_heads);
  keys.real("attention.layer_norm_rms_epsilon", c.rms_norm_eps);
  keys.number("rope.dimension_count", c.rope_dim());
  if (c.attention == Attention::gqa) {
    keys.number("attention.head_count_kv", c.num_key_value_heads);
    keys.number("attention.key_length", c.head_dim);
    keys.number("attention.value_length", c.head_dim);
    return;
  }
  if (c.q_lora_rank) keys.number("attention.q_lora_rank", *c.q_lora_rank);
  keys.number("attention.kv_lora_rank", c.kv_lora_rank);
  if (joined) {
    keys.number("attention.head_count_kv", c.num_attention_heads);
    keys.number("attention.key_length", c.qk_head_dim());
    keys.number("attention.value_length", c.v_head_dim);
    return;
  }
  // As one key head over the latent cache, and what each head is after expansion.
  keys.number("attention.head_count_kv", 1);
  keys.number("attention.key_length", c.kv_lora_rank + c.qk_rope_head_dim);
  keys.number("attention.value_length", c.kv_lora_rank);
  keys.number("attention.key_length_mla", c.qk_head_dim());
  keys.number("attention.value_length_mla", c.v_head_dim);
}

void set_rope(Keys& keys, const ModelConfig& c) {
  keys.real("rope.freq_base", c.rope_theta);
  if (c.yarn) {
    keys.text("rope.scaling.type", "yarn");
    keys.real("rope.scaling.factor", c.yarn->factor);
    keys.number("rope.scaling.original_context_length", c.yarn->original_max_position_embeddings);
    if (c.attention == Attention::mla)
      keys.real("rope.scaling.yarn_log_multiplier", 0.1 * c.yarn->mscale_all_dim);
    keys.real("rope.scaling.yarn_beta_fast", c.yarn->beta_fast);
    keys.real("rope.scaling.yarn_beta_slow", c.yarn->beta_slow);
  } else if (c.rope_linear_factor != 1) {
    keys.text("rope.scaling.type", "linear");
    keys.real("rope.scaling.factor", c.rope_linear_factor);
  }
}

void set_moe(Keys& keys, const ModelConfig& c) {
  const MoeConfig& moe = c.moe;
  if (c.attention == Attention::mla)
    keys.number("leading_dense_block_count",
                moe.n_routed_experts == 0 ? c.num_hidden_layers : moe.first_k_dense_replace);
  if (moe.n_routed_experts == 0) return;
  keys.number("expert_count", moe.n_routed_experts);
  keys.number("expert_used_count", moe.num_experts_per_tok);
  if (c.model_type == "mixtral") return;  // its experts have the width of feed_forward_length
  keys.number("expert_feed_forward_length", moe.moe_intermediate_size);
  keys.flag("expert_weights_norm", moe.norm_topk_prob);
  if (c.attention != Attention::mla) return;
  keys.number("expert_shared_count", moe.n_shared_experts);
  keys.real("expert_weights_scale", moe.routed_scaling_factor);
  keys.number("expert_gating_func", moe.scoring_func == ScoringFunc::softmax ? 1 : 2);
  if (moe.topk_method != TopkMethod::greedy) {
    keys.number("expert_group_count", moe.n_group);
    keys.number("expert_group_used_count", moe.topk_group);
  }
}

// ---- reading

// Keys below the architecture's name, with defaults.
class Reader {
 public:
  explicit Reader(const Gguf& file) : file_(file), architecture_(file.get_string("general.architecture")) {}
  const std::string& architecture() const { return architecture_; }
  std::string name(const char* key) const { return architecture_ + "." + key; }
  bool has(const char* key) const { return file_.find(name(key)) != nullptr; }
  std::int64_t number(const char* key) const { return file_.get_int(name(key)); }
  std::int64_t number(const char* key, std::int64_t otherwise) const {
    return has(key) ? number(key) : otherwise;
  }
  // A shorter decimal that still is the same float: 1e-5, not 9.99999974737875e-06.
  double real(const char* key) const {
    const auto value = static_cast<float>(file_.get_float(name(key)));
    return std::stod(fmt::format("{}", value));
  }
  double real(const char* key, double otherwise) const { return has(key) ? real(key) : otherwise; }
  bool flag(const char* key, bool otherwise) const {
    return has(key) ? file_.get_bool(name(key)) : otherwise;
  }
  const Gguf& file() const { return file_; }

 private:
  const Gguf& file_;
  std::string architecture_;
};

std::int64_t vocabulary_size(const Reader& in) {
  const GgufTensor* embedding = in.file().find_tensor("token_embd.weight");
  if (embedding != nullptr && embedding->shape.size() == 2) return embedding->shape[1];
  if (in.has("vocab_size")) return in.number("vocab_size");
  return static_cast<std::int64_t>(in.file().get_array("tokenizer.ggml.tokens").size());
}

void read_common(const Reader& in, Json& json) {
  json["vocab_size"] = vocabulary_size(in);
  json["hidden_size"] = in.number("embedding_length");
  json["intermediate_size"] = in.number("feed_forward_length");
  json["num_hidden_layers"] = in.number("block_count") - in.number("nextn_predict_layers", 0);
  json["num_attention_heads"] = in.number("attention.head_count");
  json["max_position_embeddings"] = in.number("context_length");
  json["rms_norm_eps"] = in.real("attention.layer_norm_rms_epsilon");
  json["rope_theta"] = in.real("rope.freq_base", 10000);
  json["tie_word_embeddings"] =
      !in.file().tensors().empty() && in.file().find_tensor("output.weight") == nullptr;
  for (const auto& [key, field] : {std::pair{"tokenizer.ggml.bos_token_id", "bos_token_id"},
                                   std::pair{"tokenizer.ggml.eos_token_id", "eos_token_id"}}) {
    if (in.file().find(key) != nullptr) json[field] = in.file().get_int(key);
  }
}

void read_gqa(const Reader& in, Json& json) {
  json["num_key_value_heads"] = in.number("attention.head_count_kv", in.number("attention.head_count"));
  if (in.has("attention.key_length")) json["head_dim"] = in.number("attention.key_length");
  json["attention_bias"] = in.file().find_tensor("blk.0.attn_q.bias") != nullptr;
}

Json llama3_json(double factor) {
  return {{"rope_type", "llama3"},
          {"factor", factor},
          {"low_freq_factor", 1.0},
          {"high_freq_factor", 4.0},
          {"original_max_position_embeddings", 8192}};
}

void read_rope(const Reader& in, bool mla, Json& json) {
  const std::string type =
      in.has("rope.scaling.type") ? in.file().get_string(in.name("rope.scaling.type")) : "none";
  if (const GgufTensor* factors = in.file().find_tensor("rope_freqs.weight")) {
    // llama.cpp keeps only the factors; every model with them so far has Llama 3.1's other numbers (checked
    // below).
    std::vector<float> values(static_cast<std::size_t>(factors->elements()));
    if (!values.empty()) gguf_rows(in.file(), *factors).read(0, 1, values.data());
    json["rope_scaling"] = llama3_json(values.empty() ? 8 : *std::max_element(values.begin(), values.end()));
  } else if (type == "yarn") {
    const double mscale = 10 * in.real("rope.scaling.yarn_log_multiplier", 0);
    Json yarn = {{"type", "yarn"},
                 {"factor", in.real("rope.scaling.factor")},
                 {"beta_fast", in.real("rope.scaling.yarn_beta_fast", 32)},
                 {"beta_slow", in.real("rope.scaling.yarn_beta_slow", 1)},
                 {"original_max_position_embeddings", in.number("rope.scaling.original_context_length")}};
    if (mla) yarn["mscale"] = yarn["mscale_all_dim"] = std::round(mscale * 1e6) / 1e6;
    json["rope_scaling"] = yarn;
  } else if (type == "linear") {
    json["rope_scaling"] = {{"type", "linear"}, {"factor", in.real("rope.scaling.factor")}};
  } else {
    require(type == "none", "{}: rope.scaling.type '{}' is not supported", in.file().path().string(), type);
  }
}

void read_deepseek(const Reader& in, Json& json) {
  const bool v3 = in.number("expert_gating_func", 1) == 2;
  const std::int64_t rope = in.number("rope.dimension_count");
  const bool split = in.has("attention.key_length_mla");
  json["model_type"] = v3 ? "deepseek_v3" : "deepseek_v2";
  json["num_key_value_heads"] = in.number("attention.head_count");
  json["q_lora_rank"] = in.has("attention.q_lora_rank") ? Json(in.number("attention.q_lora_rank")) : Json();
  json["kv_lora_rank"] = in.number("attention.kv_lora_rank");
  json["qk_rope_head_dim"] = rope;
  json["qk_nope_head_dim"] = in.number(split ? "attention.key_length_mla" : "attention.key_length") - rope;
  json["v_head_dim"] = in.number(split ? "attention.value_length_mla" : "attention.value_length");
  json["n_routed_experts"] = in.has("expert_count") ? Json(in.number("expert_count")) : Json();
  if (!in.has("expert_count")) return;
  const std::int64_t groups = in.number("expert_group_count", 1);
  json["num_experts_per_tok"] = in.number("expert_used_count");
  json["n_shared_experts"] = in.number("expert_shared_count", 0);
  json["moe_intermediate_size"] = in.number("expert_feed_forward_length");
  json["first_k_dense_replace"] = in.number("leading_dense_block_count", 0);
  json["n_group"] = groups;
  json["topk_group"] = in.number("expert_group_used_count", 1);
  json["scoring_func"] = v3 ? "sigmoid" : "softmax";
  json["topk_method"] = v3 ? "noaux_tc" : groups > 1 ? "group_limited_greedy" : "greedy";
  json["norm_topk_prob"] = in.flag("expert_weights_norm", false);
  json["routed_scaling_factor"] = in.real("expert_weights_scale", 1);
  if (v3) json["num_nextn_predict_layers"] = in.number("nextn_predict_layers", 0);
}

Json config_json(const Reader& in) {
  Json json;
  read_common(in, json);
  if (in.architecture() == "deepseek2") {
    read_deepseek(in, json);
  } else if (in.architecture() == "qwen3moe") {
    json["model_type"] = "qwen3_moe";
    read_gqa(in, json);
    json["num_experts"] = in.number("expert_count");
    json["num_experts_per_tok"] = in.number("expert_used_count");
    json["moe_intermediate_size"] = in.number("expert_feed_forward_length");
    json["norm_topk_prob"] = in.flag("expert_weights_norm", true);  // llama.cpp always normalises
  } else if (in.architecture() == "llama") {
    json["model_type"] = in.number("expert_count", 0) > 0 ? "mixtral" : "llama";
    read_gqa(in, json);
    if (in.number("expert_count", 0) > 0) {
      json["num_local_experts"] = in.number("expert_count");
      json["num_experts_per_tok"] = in.number("expert_used_count");
    }
  } else {
    fail("{}: architecture '{}' is not supported (llama, qwen3moe and deepseek2 are)",
         in.file().path().string(), in.architecture());
  }
  read_rope(in, in.architecture() == "deepseek2", json);
  return json;
}

void check_rope_factors(const Gguf& file, const ModelConfig& config) {
  const GgufTensor* tensor = file.find_tensor("rope_freqs.weight");
  if (tensor == nullptr || !config.llama3) return;
  const std::vector<float> expected = llama3_rope_factors(config);
  std::vector<float> values(static_cast<std::size_t>(tensor->elements()));
  if (!values.empty()) gguf_rows(file, *tensor).read(0, 1, values.data());
  bool same = values.size() == expected.size();
  for (std::size_t i = 0; same && i < values.size(); ++i)
    same = std::abs(values[i] - expected[i]) <= 1e-3F * expected[i];
  require(same, "{}: rope_freqs.weight holds a rotary scaling that is not that of Llama 3.1",
          file.path().string());
}

}  // namespace

GgufMetadata gguf_metadata(const ModelConfig& c, const std::string& name, const GgufOptions& options) {
  GgufMetadata metadata;
  const std::string architecture = architecture_of(c);
  metadata.set_string("general.architecture", architecture);
  metadata.set_string("general.type", "model");
  metadata.set_string("general.name", name);
  metadata.set_u32("general.quantization_version", 2);
  Keys keys(metadata, architecture);
  const std::int64_t mtp = options.mtp ? c.num_nextn_predict_layers : 0;
  keys.number("block_count", c.num_hidden_layers + mtp);
  if (mtp > 0) keys.number("nextn_predict_layers", mtp);
  keys.number("context_length", c.max_position_embeddings);
  keys.number("embedding_length", c.hidden_size);
  keys.number("feed_forward_length", c.intermediate_size);
  keys.number("vocab_size", c.vocab_size);
  set_attention(keys, c, options.joined_kv_b);
  set_rope(keys, c);
  set_moe(keys, c);
  ModelConfig kept = c;
  if (!options.mtp) kept.num_nextn_predict_layers = 0;
  metadata.set_string("sinew.config", write_model_config(kept));
  return metadata;
}

std::vector<float> llama3_rope_factors(const ModelConfig& config) {
  ModelConfig plain = config;
  plain.llama3.reset();
  const std::vector<double> scaled = rope_frequencies(config), whole = rope_frequencies(plain);
  std::vector<float> factors(scaled.size());
  for (std::size_t i = 0; i < factors.size(); ++i) factors[i] = static_cast<float>(whole[i] / scaled[i]);
  return factors;
}

ModelConfig gguf_model_config(const Gguf& file) {
  const std::string origin = file.path().string();
  if (file.find("sinew.config") != nullptr)
    return parse_model_config(file.get_string("sinew.config"), origin);
  const ModelConfig config = parse_model_config(config_json(Reader(file)).dump(), origin);
  check_rope_factors(file, config);
  return config;
}

}  // namespace sinew
