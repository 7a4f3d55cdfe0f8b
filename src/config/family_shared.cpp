#include <algorithm>

#include "config/family.hpp"

namespace sinew {
namespace {

std::string_view topk_name(TopkMethod method) {
  switch (method) {
    case TopkMethod::greedy:
      return "greedy";
    case TopkMethod::group_limited_greedy:
      return "group_limited_greedy";
    case TopkMethod::noaux_tc:
      return "noaux_tc";
  }
  return "";
}

}  // namespace

void read_mla(const ConfigReader& reader, ModelConfig& config) {
  config.attention = Attention::mla;
  // HF's class takes 1536 for an absent key, which nobody who left it out meant.
  if (!reader.mentions("q_lora_rank"))
    reader.bad("q_lora_rank", "is missing (a rank, or null for a plain q_proj)");
  if (reader.has("q_lora_rank")) config.q_lora_rank = reader.integer({"q_lora_rank"}, 1);
  config.kv_lora_rank = reader.integer({"kv_lora_rank"}, 1);
  config.qk_nope_head_dim = reader.integer({"qk_nope_head_dim"}, 1, 65536);
  config.qk_rope_head_dim = reader.integer({"qk_rope_head_dim"}, 2, 65536);
  config.v_head_dim = reader.integer({"v_head_dim"}, 1, 65536);
  reader.check(config.qk_rope_head_dim % 2 == 0, "qk_rope_head_dim",
               "is {}, but rotary pairs need an even number", config.qk_rope_head_dim);
  const auto qk = reader.integer_or({"qk_head_dim"}, config.qk_head_dim(), 1);
  reader.check(qk == config.qk_head_dim(), "qk_head_dim",
               "is {}, but qk_nope_head_dim + qk_rope_head_dim is {}", qk, config.qk_head_dim());
  config.num_key_value_heads = reader.integer_or({"num_key_value_heads"}, config.num_attention_heads, 1);
  reader.check(config.num_key_value_heads == config.num_attention_heads, "num_key_value_heads",
               "is {}, but latent attention needs as many as num_attention_heads ({})",
               config.num_key_value_heads, config.num_attention_heads);
  reader.check(!reader.boolean_or("attention_bias", false), "attention_bias",
               "is true, which Sinew does not build for latent attention");
  config.rope_layout =
      reader.boolean_or("rope_interleave", true) ? RopeLayout::interleaved : RopeLayout::half;
}

void write_mla(const ModelConfig& config, Json& json) {
  json["q_lora_rank"] = config.q_lora_rank ? Json(*config.q_lora_rank) : Json(nullptr);
  json["kv_lora_rank"] = config.kv_lora_rank;
  json["qk_nope_head_dim"] = config.qk_nope_head_dim;
  json["qk_rope_head_dim"] = config.qk_rope_head_dim;
  json["v_head_dim"] = config.v_head_dim;
  json["attention_bias"] = false;
  if (config.rope_layout == RopeLayout::half) json["rope_interleave"] = false;
}

void read_gqa(const ConfigReader& reader, ModelConfig& config, bool kv_heads_required) {
  config.attention = Attention::gqa;
  config.num_key_value_heads =
      kv_heads_required ? reader.integer({"num_key_value_heads"}, 1)
                        : reader.integer_or({"num_key_value_heads"}, config.num_attention_heads, 1);
  reader.check(config.num_attention_heads % config.num_key_value_heads == 0, "num_attention_heads",
               "is {}, not a multiple of num_key_value_heads ({})", config.num_attention_heads,
               config.num_key_value_heads);
  if (reader.has("head_dim")) {
    config.head_dim = reader.integer({"head_dim"}, 2, 65536);
  } else {
    reader.check(config.hidden_size % config.num_attention_heads == 0, "hidden_size",
                 "is {}, not divisible by num_attention_heads ({}), and there is no head_dim",
                 config.hidden_size, config.num_attention_heads);
    config.head_dim = config.hidden_size / config.num_attention_heads;
  }
  reader.check(config.head_dim % 2 == 0, "head_dim", "is {}, but rotary pairs need an even number",
               config.head_dim);
  const double rotated = reader.number_or({"partial_rotary_factor"}, 1, 0, 1);
  reader.check(rotated == 1, "partial_rotary_factor", "is {}, but Sinew rotates whole heads only", rotated);
  config.rope_layout = RopeLayout::half;
}

void write_gqa(const ModelConfig& config, Json& json) { json["head_dim"] = config.head_dim; }

void read_deepseek_moe(const ConfigReader& reader, ModelConfig& config) {
  MoeConfig& moe = config.moe;
  moe.n_routed_experts = reader.integer_or({"n_routed_experts", "num_local_experts"}, 0, 0, 65536);
  if (moe.n_routed_experts == 0) return;
  moe.num_experts_per_tok = reader.integer({"num_experts_per_tok"}, 1, 65536);
  moe.n_shared_experts = reader.integer_or({"n_shared_experts"}, 0, 0, 65536);
  moe.moe_intermediate_size = reader.integer({"moe_intermediate_size"}, 1);
  moe.first_k_dense_replace = reader.integer_or({"first_k_dense_replace"}, moe.first_k_dense_replace, 0);
  moe.moe_layer_freq = reader.integer_or({"moe_layer_freq"}, 1, 1);
  moe.n_group = reader.integer_or({"n_group"}, moe.n_group, 1);
  moe.topk_group = reader.integer_or({"topk_group"}, moe.topk_group, 1);
  moe.norm_topk_prob = reader.boolean_or("norm_topk_prob", moe.norm_topk_prob);
  moe.routed_scaling_factor = reader.number_or({"routed_scaling_factor"}, moe.routed_scaling_factor, 0, 1e6);
  moe.aux_loss_alpha = reader.number_or({"aux_loss_alpha"}, moe.aux_loss_alpha, 0, 1e6);
  moe.seq_aux = reader.boolean_or("seq_aux", true);
}

void write_deepseek_moe(const ModelConfig& config, Json& json) {
  const MoeConfig& moe = config.moe;
  if (moe.n_routed_experts == 0) {
    json["n_routed_experts"] = nullptr;
    return;
  }
  json["n_routed_experts"] = moe.n_routed_experts;
  json["num_experts_per_tok"] = moe.num_experts_per_tok;
  json["n_shared_experts"] = moe.n_shared_experts > 0 ? Json(moe.n_shared_experts) : Json(nullptr);
  json["moe_intermediate_size"] = moe.moe_intermediate_size;
  json["first_k_dense_replace"] = moe.first_k_dense_replace;
  json["moe_layer_freq"] = moe.moe_layer_freq;
  json["n_group"] = moe.n_group;
  json["topk_group"] = moe.topk_group;
  json["topk_method"] = topk_name(moe.topk_method);
  json["scoring_func"] = moe.scoring_func == ScoringFunc::softmax ? "softmax" : "sigmoid";
  json["norm_topk_prob"] = moe.norm_topk_prob;
  json["routed_scaling_factor"] = moe.routed_scaling_factor;
  json["aux_loss_alpha"] = moe.aux_loss_alpha;
  json["seq_aux"] = moe.seq_aux;
}

void refuse_windows(const ConfigReader& reader, std::int64_t max_positions, bool in_use) {
  const auto window = reader.integer_or({"sliding_window"}, 0, 0, kMaxPositions);
  reader.check(!in_use || window == 0 || window >= max_positions, "sliding_window",
               "is {}, but Sinew attends to the whole text; set it to null if the model was trained so",
               window);
}

}  // namespace sinew
