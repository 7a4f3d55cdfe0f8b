// DeepSeek-V3 and R1: as V2, with sigmoid scores, bias-corrected selection and multi-token prediction.
#include "config/family.hpp"

namespace sinew {
namespace {

void read(const ConfigReader& reader, ModelConfig& config) {
  read_mla(reader, config);
  // What HF's class takes where a key is absent.
  MoeConfig& moe = config.moe;
  moe.first_k_dense_replace = 3;
  moe.n_group = 8;
  moe.topk_group = 4;
  moe.norm_topk_prob = true;
  moe.routed_scaling_factor = 2.5;
  moe.aux_loss_alpha = 0.0001;
  read_deepseek_moe(reader, config);
  config.num_nextn_predict_layers = reader.integer_or({"num_nextn_predict_layers"}, 0, 0, 64);
  if (moe.n_routed_experts == 0) {
    moe = {};
    return;
  }
  const auto scoring = reader.text_or("scoring_func", "sigmoid");
  reader.check(scoring == "sigmoid", "scoring_func", "is \"{}\", but deepseek_v3 has sigmoid",
               printable(scoring));
  const auto method = reader.text_or("topk_method", "noaux_tc");
  reader.check(method == "noaux_tc", "topk_method", "is \"{}\", but deepseek_v3 has noaux_tc",
               printable(method));
  moe.scoring_func = ScoringFunc::sigmoid;
  moe.topk_method = TopkMethod::noaux_tc;
}

void write(const ModelConfig& config, Json& json) {
  write_mla(config, json);
  write_deepseek_moe(config, json);
  json["num_nextn_predict_layers"] = config.num_nextn_predict_layers;
}

}  // namespace

const Family kDeepseekV3{
    "deepseek_v3", "DeepseekV3ForCausalLM", {"mlp", "gate_proj", "up_proj", "down_proj"}, read, write};

}  // namespace sinew
