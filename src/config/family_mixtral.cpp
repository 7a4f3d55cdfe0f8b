// Mixtral: every layer a mixture of num_local_experts, top-2 renormalised.
#include "config/family.hpp"

namespace sinew {
namespace {

void read(const ConfigReader& reader, ModelConfig& config) {
  read_gqa(reader, config, true);
  refuse_windows(reader, config.max_position_embeddings, true);
  MoeConfig& moe = config.moe;
  moe.n_routed_experts = reader.integer({"num_local_experts", "num_experts"}, 1, 65536);
  moe.num_experts_per_tok = reader.integer({"num_experts_per_tok"}, 1, 65536);
  moe.moe_intermediate_size = config.intermediate_size;
  moe.norm_topk_prob = true;
  moe.aux_loss_alpha = reader.number_or({"router_aux_loss_coef"}, 0.001, 0, 1e6);
  moe.seq_aux = false;
}

void write(const ModelConfig& config, Json& json) {
  write_gqa(config, json);
  json["num_local_experts"] = config.moe.n_routed_experts;
  json["num_experts_per_tok"] = config.moe.num_experts_per_tok;
  json["router_aux_loss_coef"] = config.moe.aux_loss_alpha;
  json["sliding_window"] = nullptr;
}

}  // namespace

const Family kMixtral{"mixtral", "MixtralForCausalLM", {"block_sparse_moe", "w1", "w3", "w2"}, read, write};

}  // namespace sinew
