// DeepSeek-V2 and V2-Lite (configuration_deepseek.py of the released checkpoints).
#include "config/family.hpp"

namespace sinew {
namespace {

void read(const ConfigReader& reader, ModelConfig& config) {
  read_mla(reader, config);
  MoeConfig& moe = config.moe;
  moe.aux_loss_alpha = 0.001;
  read_deepseek_moe(reader, config);
  if (moe.n_routed_experts == 0) {
    moe = {};
    return;
  }
  const auto scoring = reader.text_or("scoring_func", "softmax");
  reader.check(scoring == "softmax", "scoring_func", "is \"{}\", but deepseek_v2 has softmax",
               printable(scoring));
  const auto method = reader.text_or("topk_method", "greedy");
  if (method == "group_limited_greedy") {
    moe.topk_method = TopkMethod::group_limited_greedy;
  } else {
    // "gready" is how the released class spells its default.
    reader.check(method == "greedy" || method == "gready", "topk_method",
                 "is \"{}\", but deepseek_v2 has greedy or group_limited_greedy", printable(method));
  }
}

void write(const ModelConfig& config, Json& json) {
  write_mla(config, json);
  write_deepseek_moe(config, json);
}

}  // namespace

const Family kDeepseekV2{
    "deepseek_v2", "DeepseekV2ForCausalLM", {"mlp", "gate_proj", "up_proj", "down_proj"}, read, write};

}  // namespace sinew
