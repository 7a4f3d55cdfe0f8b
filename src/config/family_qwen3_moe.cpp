// Qwen3-MoE: normalised query and key heads, fine-grained experts without shared ones.
#include "config/family.hpp"

namespace sinew {
namespace {

void read(const ConfigReader& reader, ModelConfig& config) {
  read_gqa(reader, config, true);
  config.qk_norm = true;
  config.attention_bias = reader.boolean_or("attention_bias", false);
  refuse_windows(reader, config.max_position_embeddings, reader.boolean_or("use_sliding_window", false));
  MoeConfig& moe = config.moe;
  moe.n_routed_experts = reader.integer({"num_experts", "num_local_experts"}, 1, 65536);
  moe.num_experts_per_tok = reader.integer({"num_experts_per_tok"}, 1, 65536);
  moe.moe_intermediate_size = reader.integer({"moe_intermediate_size"}, 1);
  moe.norm_topk_prob = reader.boolean_or("norm_topk_prob", false);
  moe.aux_loss_alpha = reader.number_or({"router_aux_loss_coef"}, 0.001, 0, 1e6);
  moe.seq_aux = false;
  moe.decoder_sparse_step = reader.integer_or({"decoder_sparse_step"}, 1, 1);
  moe.mlp_only_layers = reader.integers("mlp_only_layers", 0, config.num_hidden_layers - 1);
}

void write(const ModelConfig& config, Json& json) {
  const MoeConfig& moe = config.moe;
  write_gqa(config, json);
  json["attention_bias"] = config.attention_bias;
  json["use_sliding_window"] = false;
  json["num_experts"] = moe.n_routed_experts;
  json["num_experts_per_tok"] = moe.num_experts_per_tok;
  json["moe_intermediate_size"] = moe.moe_intermediate_size;
  json["norm_topk_prob"] = moe.norm_topk_prob;
  json["router_aux_loss_coef"] = moe.aux_loss_alpha;
  json["decoder_sparse_step"] = moe.decoder_sparse_step;
  json["mlp_only_layers"] = moe.mlp_only_layers;
}

}  // namespace

const Family kQwen3Moe{
    "qwen3_moe", "Qwen3MoeForCausalLM", {"mlp", "gate_proj", "up_proj", "down_proj"}, read, write};

}  // namespace sinew
