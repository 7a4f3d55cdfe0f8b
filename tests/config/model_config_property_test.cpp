#include <gtest/gtest.h>

#include <set>

#include "base/error.hpp"
#include "config/model_config.hpp"
#include "config/presets.hpp"
#include "support/property.hpp"
#include "support/support.hpp"

namespace sinew {
namespace {

std::int64_t pick(std::int64_t low, std::int64_t high) { return test::draw<std::int64_t>(low, high + 1); }
double some(std::initializer_list<double> values) { return test::draw_from(std::vector<double>(values)); }
bool coin() { return test::draw_bool(); }

void fill_rope(ModelConfig& config) {
  config.rope_theta = some({10000, 1e6, 500000, 12345.678});
  switch (pick(0, 3)) {
    case 1:
      config.yarn = YarnScaling{
          some({1, 4, 40, 2.5}), 32,          some({1, 0.5}), some({1, 0.707}), some({0, 1, 0.707}),
          pick(1, 9000),         std::nullopt};
      if (coin()) config.yarn->attention_factor = some({1.1, 0.5});
      break;
    case 2:
      config.llama3 = Llama3Scaling{some({8, 32}), 1, some({4, 1.5}), pick(1, 9000)};
      break;
    case 3:
      config.rope_linear_factor = some({2, 3.7});
      break;
    default:
      break;
  }
}

void fill_gqa(ModelConfig& config) {
  config.num_key_value_heads = pick(1, 6);
  config.num_attention_heads = config.num_key_value_heads * pick(1, 4);
  config.head_dim = 2 * pick(1, 64);
}

void fill_mla(ModelConfig& config) {
  config.attention = Attention::mla;
  config.rope_layout = coin() ? RopeLayout::interleaved : RopeLayout::half;
  config.num_attention_heads = config.num_key_value_heads = pick(1, 16);
  if (coin()) config.q_lora_rank = pick(1, 2000);
  config.kv_lora_rank = pick(1, 600);
  config.qk_nope_head_dim = pick(1, 200);
  config.qk_rope_head_dim = 2 * pick(1, 100);
  config.v_head_dim = pick(1, 200);
}

void fill_deepseek_moe(ModelConfig& config) {
  MoeConfig& moe = config.moe;
  moe.n_group = pick(1, 8);
  moe.n_routed_experts = moe.n_group * pick(2, 8);
  moe.topk_group = pick(1, moe.n_group);
  moe.num_experts_per_tok = pick(1, moe.topk_group * (moe.n_routed_experts / moe.n_group));
  moe.n_shared_experts = pick(0, 3);
  moe.moe_intermediate_size = pick(1, 3000);
  moe.first_k_dense_replace = pick(0, config.num_hidden_layers);
  moe.moe_layer_freq = pick(1, 3);
  moe.norm_topk_prob = coin();
  moe.routed_scaling_factor = some({1, 2.5, 16});
  moe.aux_loss_alpha = some({0, 0.001, 0.003});
  moe.seq_aux = coin();
}

ModelConfig random_config() {
  ModelConfig config;
  config.model_type = test::draw_of({"deepseek_v2", "deepseek_v3", "mixtral", "qwen3_moe", "llama"});
  config.vocab_size = pick(1, 200000);
  config.hidden_size = pick(1, 9000);
  config.intermediate_size = pick(1, 20000);
  config.num_hidden_layers = pick(1, 90);
  config.max_position_embeddings = pick(1, 200000);
  config.rms_norm_eps = some({1e-6, 1e-5});
  config.initializer_range = some({0.02, 0.006});
  config.tie_word_embeddings = coin();
  config.dtype = test::draw_of({"", "float32", "bfloat16"});
  if (coin()) config.bos_token_ids = {pick(0, 5)};
  for (auto n = pick(0, 3); n > 0; --n) config.eos_token_ids.push_back(pick(0, 99));
  fill_rope(config);
  MoeConfig& moe = config.moe;
  if (config.model_type.starts_with("deepseek")) {
    fill_mla(config);
    const bool v3 = config.model_type == "deepseek_v3";
    if (v3) config.num_nextn_predict_layers = pick(0, 2);
    if (coin()) return config;  // dense
    fill_deepseek_moe(config);
    if (v3) moe.scoring_func = ScoringFunc::sigmoid;
    moe.topk_method = v3       ? TopkMethod::noaux_tc
                      : coin() ? TopkMethod::greedy
                               : TopkMethod::group_limited_greedy;
    return config;
  }
  fill_gqa(config);
  if (config.model_type != "mixtral") config.attention_bias = coin();
  if (config.model_type == "llama") return config;
  moe.n_routed_experts = pick(1, 64);
  moe.num_experts_per_tok = pick(1, moe.n_routed_experts);
  moe.aux_loss_alpha = some({0, 0.001, 0.02});
  moe.seq_aux = false;
  if (config.model_type == "mixtral") {
    moe.moe_intermediate_size = config.intermediate_size;
    moe.norm_topk_prob = true;
    return config;
  }
  config.qk_norm = true;
  moe.norm_topk_prob = coin();
  moe.moe_intermediate_size = pick(1, 3000);
  moe.decoder_sparse_step = pick(1, 3);
  for (auto n = pick(0, 2); n > 0; --n) moe.mlp_only_layers.push_back(pick(0, config.num_hidden_layers - 1));
  return config;
}

PROPERTY(ModelConfigProperty, ParseOfWriteIsTheSame) {
  const auto config = random_config();
  const auto text = write_model_config(config);
  test::case_log() << text;
  HOLDS(parse_model_config(text) == config);
}

PROPERTY(ModelConfigProperty, ActiveIsPartOfTotalAndNamesAreUnique) {
  const auto config = random_config();
  const auto counts = count_parameters(config);
  HOLDS(counts.active > 0);
  HOLDS(counts.active <= counts.total);
  HOLDS(train_flops_per_token(config, 128) > 0);
  std::set<std::string> names;
  for (const auto& spec : tensor_specs(config)) HOLDS(names.insert(spec.name).second);
}

// Bytes of a good file replaced, removed or doubled: a config or a UserError, nothing else.
PROPERTY(ModelConfigProperty, DamagedTextNeverCrashes) {
  auto text = test::slurp(configs_dir() / "models" / test::draw_from(model_presets()) / "config.json");
  for (auto n = pick(1, 4); n > 0; --n) {
    const auto at = static_cast<std::size_t>(pick(0, static_cast<std::int64_t>(text.size()) - 1));
    const auto length = static_cast<std::size_t>(pick(1, 40));
    switch (pick(0, 3)) {
      case 0:
        text[at] = static_cast<char>(test::draw_bits());
        break;
      case 1:
        text.erase(at, length);
        break;
      case 2:
        text.insert(at, text.substr(at, length));
        break;
      default:
        text.insert(at, test::draw_of<std::string>({"9", "-", "null", "{", "[", "\"", "1e999", "e"}));
        break;
    }
    if (text.empty()) break;
  }
  try {
    const auto config = parse_model_config(text);
    HOLDS(count_parameters(config).total > 0);
  } catch (const UserError& error) {
    HOLDS(std::string(error.what()).find('\n') == std::string::npos);
  }
}

}  // namespace
}  // namespace sinew
