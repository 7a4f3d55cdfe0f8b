// Small configs of every family, for tests that need no files.
#pragma once

#include "config/model_config.hpp"

namespace sinew::test {

inline ModelConfig tiny_llama() {
  ModelConfig c;
  c.model_type = "llama";
  c.vocab_size = 61;
  c.hidden_size = 24;
  c.intermediate_size = 40;
  c.num_hidden_layers = 2;
  c.max_position_embeddings = 64;
  c.num_attention_heads = 4;
  c.num_key_value_heads = 2;
  c.head_dim = 8;
  c.initializer_range = 0.3;
  return c;
}

inline ModelConfig tiny_mixtral() {
  auto c = tiny_llama();
  c.model_type = "mixtral";
  c.rms_norm_eps = 1e-5;
  c.moe.n_routed_experts = 6;
  c.moe.num_experts_per_tok = 2;
  c.moe.moe_intermediate_size = c.intermediate_size;
  c.moe.norm_topk_prob = true;
  return c;
}

inline ModelConfig tiny_qwen3_moe() {
  auto c = tiny_mixtral();
  c.model_type = "qwen3_moe";
  c.qk_norm = true;
  c.attention_bias = true;
  c.moe.moe_intermediate_size = 12;
  return c;
}

// Group-limited greedy gate, q_lora, YaRN, one dense layer, shared experts.
inline ModelConfig tiny_deepseek_v2() {
  ModelConfig c;
  c.model_type = "deepseek_v2";
  c.vocab_size = 61;
  c.hidden_size = 32;
  c.intermediate_size = 48;
  c.num_hidden_layers = 3;
  c.max_position_embeddings = 128;
  c.initializer_range = 0.3;
  c.attention = Attention::mla;
  c.rope_layout = RopeLayout::interleaved;
  c.num_attention_heads = c.num_key_value_heads = 4;
  c.q_lora_rank = 20;
  c.kv_lora_rank = 16;
  c.qk_nope_head_dim = 8;
  c.qk_rope_head_dim = 8;
  c.v_head_dim = 12;
  c.yarn = YarnScaling{};
  c.yarn->factor = 4;
  c.yarn->mscale = c.yarn->mscale_all_dim = 0.707;
  c.yarn->original_max_position_embeddings = 32;
  c.moe.n_routed_experts = 8;
  c.moe.num_experts_per_tok = 3;
  c.moe.n_shared_experts = 2;
  c.moe.moe_intermediate_size = 12;
  c.moe.first_k_dense_replace = 1;
  c.moe.n_group = 4;
  c.moe.topk_group = 2;
  c.moe.topk_method = TopkMethod::group_limited_greedy;
  c.moe.routed_scaling_factor = 2;
  return c;
}

// Sigmoid scores, bias-corrected groups, renormalised; one multi-token-prediction layer.
inline ModelConfig tiny_deepseek_v3() {
  auto c = tiny_deepseek_v2();
  c.model_type = "deepseek_v3";
  c.moe.scoring_func = ScoringFunc::sigmoid;
  c.moe.topk_method = TopkMethod::noaux_tc;
  c.moe.norm_topk_prob = true;
  c.moe.routed_scaling_factor = 2.5;
  c.num_nextn_predict_layers = 1;
  return c;
}

}  // namespace sinew::test
