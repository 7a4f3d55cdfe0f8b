#include "config/model_config.hpp"

#include <algorithm>
#include <array>
#include <cmath>

#include "base/files.hpp"
#include "base/text.hpp"
#include "config/family.hpp"
#include "config/presets.hpp"
#include "config/rope_json.hpp"

namespace sinew {
namespace {

constexpr std::uint64_t kMaxFile = std::uint64_t{16} << 20;
constexpr int kMaxDepth = 32;
constexpr std::int64_t kMaxExpertTensors = std::int64_t{1} << 22;
constexpr double kMaxParameters = 1e17;  // so that no count of bytes or FLOPs overflows

Json parse_object(std::string_view text, const std::string& origin) {
  require(text.size() <= kMaxFile, "{}: over {} bytes, not a config.json", origin, kMaxFile);
  std::set<std::string> seen;
  std::string twice;
  const auto callback = [&](int depth, nlohmann::detail::parse_event_t event, Json& value) {
    require(depth <= kMaxDepth, "{}: nested too deeply", origin);
    if (event == nlohmann::detail::parse_event_t::key && depth == 1 &&
        !seen.insert(value.get_ref<const std::string&>()).second)
      twice = value.get<std::string>();
    return true;
  };
  try {
    Json json = Json::parse(text, callback);
    require(json.is_object(), "{}: not a JSON object", origin);
    require(twice.empty(), "{}: {} is there twice", origin, printable(twice));
    return json;
  } catch (const nlohmann::json::exception& error) {
    const std::string_view what = error.what();
    const auto start = what.find("] ");
    fail("{}: not valid JSON: {}", origin,
         printable(start == what.npos ? what : what.substr(start + 2), 160));
  }
}

std::string supported() {
  std::vector<std::string> names;
  for (const Family* family : families()) names.emplace_back(family->model_type);
  return join(names, ", ");
}

// The sizes that every family has.
void read_common(const ConfigReader& reader, ModelConfig& config) {
  config.vocab_size = reader.integer({"vocab_size"}, 1);
  config.hidden_size = reader.integer({"hidden_size"}, 1, 1 << 20);
  config.intermediate_size = reader.integer({"intermediate_size"}, 1);
  config.num_hidden_layers = reader.integer({"num_hidden_layers"}, 1, 65536);
  config.num_attention_heads = reader.integer({"num_attention_heads"}, 1, 65536);
  config.max_position_embeddings = reader.integer({"max_position_embeddings"}, 1, kMaxPositions);
  config.rms_norm_eps = reader.number_or({"rms_norm_eps"}, 1e-6, 0, 1);
  config.initializer_range = reader.number_or({"initializer_range"}, 0.02, 0, 1e3);
  config.tie_word_embeddings = reader.boolean_or("tie_word_embeddings", false);
  config.bos_token_ids = reader.integers("bos_token_id", -1, kMaxSize);
  config.eos_token_ids = reader.integers("eos_token_id", -1, kMaxSize);
  const auto activation = reader.text_or("hidden_act", "silu");
  reader.check(activation == "silu" || activation == "swish", "hidden_act",
               "is \"{}\", but Sinew's feed-forward is SwiGLU (silu)", printable(activation));
  config.dtype = reader.text_or(reader.has("dtype") ? "dtype" : "torch_dtype", "");
  reader.check(!reader.has("torch_dtype") || reader.text("torch_dtype") == config.dtype, "torch_dtype",
               "and dtype contradict each other");
  if (reader.has("layer_types")) reader.all_equal("layer_types", "full_attention");
}

void check_moe(const ConfigReader& reader, const ModelConfig& config) {
  const MoeConfig& moe = config.moe;
  if (moe.n_routed_experts == 0) return;
  reader.check(moe.num_experts_per_tok <= moe.n_routed_experts, "num_experts_per_tok",
               "is {}, more than the {} routed experts", moe.num_experts_per_tok, moe.n_routed_experts);
  reader.check(moe.first_k_dense_replace <= config.num_hidden_layers, "first_k_dense_replace",
               "is {}, more than num_hidden_layers ({})", moe.first_k_dense_replace,
               config.num_hidden_layers);
  reader.check(moe.n_routed_experts % moe.n_group == 0, "n_group",
               "is {}, which does not divide the {} routed experts", moe.n_group, moe.n_routed_experts);
  reader.check(moe.topk_group <= moe.n_group, "topk_group", "is {}, more than n_group ({})", moe.topk_group,
               moe.n_group);
  const auto group = moe.n_routed_experts / moe.n_group;
  reader.check(moe.topk_method == TopkMethod::greedy || moe.num_experts_per_tok <= moe.topk_group * group,
               "num_experts_per_tok", "is {}, but topk_group groups hold only {} experts",
               moe.num_experts_per_tok, moe.topk_group * group);
  reader.check(moe.topk_method != TopkMethod::noaux_tc || group >= 2, "n_group",
               "is {}: groups of one expert have no two best to be scored by", moe.n_group);
  const auto layers = config.num_hidden_layers + config.num_nextn_predict_layers;
  reader.check(layers <= kMaxExpertTensors / moe.n_routed_experts, "num_hidden_layers",
               "is {}, with {} experts each more than Sinew counts", layers, moe.n_routed_experts);
}

// An upper bound in floating point: every layer with everything.
double parameter_bound(const ModelConfig& config) {
  const auto of = [](std::int64_t n) { return static_cast<double>(n); };
  const MoeConfig& moe = config.moe;
  const double hidden = of(config.hidden_size), heads = of(config.num_attention_heads);
  const double rank = of(config.q_lora_rank.value_or(config.hidden_size));
  const double attention =
      (heads * of(config.qk_head_dim()) + rank) * (hidden + rank) +
      (of(config.kv_lora_rank) + hidden) * (of(config.kv_lora_rank + config.qk_rope_head_dim) +
                                            2 * heads * of(config.qk_head_dim() + config.value_head_dim()));
  const double ffn = 3 * hidden *
                         (of(config.intermediate_size) +
                          of(moe.n_routed_experts + moe.n_shared_experts) * of(moe.moe_intermediate_size)) +
                     hidden * of(moe.n_routed_experts + 1);
  return of(config.num_hidden_layers + config.num_nextn_predict_layers) *
             (attention + ffn + 4 * hidden * hidden) +
         2 * of(config.vocab_size) * hidden;
}

Json ids_json(const std::vector<std::int64_t>& ids) {
  if (ids.empty()) return nullptr;
  return ids.size() == 1 ? Json(ids.front()) : Json(ids);
}

}  // namespace

std::span<const Family* const> families() {
  static constexpr std::array<const Family*, 5> kAll{&kDeepseekV2, &kDeepseekV3, &kMixtral, &kQwen3Moe,
                                                     &kLlama};
  return kAll;
}

const Family& family_of(std::string_view model_type) {
  for (const Family* family : families())
    if (family->model_type == model_type) return *family;
  ensure(false, "no model family {}", model_type);
  std::abort();
}

ModelConfig parse_model_config(std::string_view text, const std::string& origin) {
  const Json json = parse_object(text, origin);
  const ConfigReader reader(json, origin);
  ModelConfig config;
  config.model_type = reader.text("model_type");
  const auto all = families();
  const auto family = std::find_if(all.begin(), all.end(),
                                   [&](const Family* f) { return f->model_type == config.model_type; });
  reader.check(family != all.end(), "model_type", "is \"{}\"; Sinew has {}", printable(config.model_type),
               supported());
  read_common(reader, config);
  read_rope(reader, 10000, config);
  (*family)->read(reader, config);
  check_moe(reader, config);
  require(parameter_bound(config) < kMaxParameters,
          "{}: sizes this large make more parameters than Sinew counts", origin);
  return config;
}

ModelConfig load_model_config(const std::filesystem::path& path) {
  std::error_code ignored;
  fs::path file = path;
  if (fs::is_directory(path, ignored)) file = path / "config.json";
  if (!fs::exists(file, ignored)) {
    const bool bare = !path.empty() && path.filename() == path;
    if (bare) {
      const auto names = model_presets();
      const auto found = std::find(names.begin(), names.end(), path.string());
      if (found == names.end())
        fail("{}: no such file, and no preset of that name{} (presets: {})", path.string(),
             did_you_mean(path.string(), names), join(names, ", "));
      file = configs_dir() / "models" / path / "config.json";
    } else if (file != path) {
      fail("{}: no config.json in this folder", path.string());
    }
  }
  return parse_model_config(read_file(file, kMaxFile), file.string());
}

std::string write_model_config(const ModelConfig& config) {
  const Family& family = family_of(config.model_type);
  Json json;
  json["architectures"] = {family.architecture};
  json["model_type"] = config.model_type;
  json["vocab_size"] = config.vocab_size;
  json["hidden_size"] = config.hidden_size;
  json["intermediate_size"] = config.intermediate_size;
  json["num_hidden_layers"] = config.num_hidden_layers;
  json["num_attention_heads"] = config.num_attention_heads;
  json["num_key_value_heads"] = config.num_key_value_heads;
  family.write(config, json);
  json["hidden_act"] = "silu";
  json["max_position_embeddings"] = config.max_position_embeddings;
  json["rms_norm_eps"] = config.rms_norm_eps;
  json["initializer_range"] = config.initializer_range;
  write_rope(config, json);
  json["attention_dropout"] = 0.0;
  json["tie_word_embeddings"] = config.tie_word_embeddings;
  json["bos_token_id"] = ids_json(config.bos_token_ids);
  json["eos_token_id"] = ids_json(config.eos_token_ids);
  json["use_cache"] = true;
  if (!config.dtype.empty()) json["torch_dtype"] = json["dtype"] = config.dtype;
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

bool known_config_key(std::string_view key) {
  static constexpr auto kKnown = std::to_array<std::string_view>({
      "architectures",
      "attention_bias",
      "attention_dropout",
      "auto_map",
      "aux_loss_alpha",
      "bos_token_id",
      "decoder_sparse_step",
      "dtype",
      "eos_token_id",
      "ep_size",
      "first_k_dense_replace",
      "head_dim",
      "hidden_act",
      "hidden_size",
      "initializer_range",
      "intermediate_size",
      "kv_lora_rank",
      "layer_types",
      "max_position_embeddings",
      "max_window_layers",
      "mlp_bias",
      "mlp_only_layers",
      "model_type",
      "moe_intermediate_size",
      "moe_layer_freq",
      "n_group",
      "n_routed_experts",
      "n_shared_experts",
      "norm_topk_prob",
      "num_attention_heads",
      "num_experts",
      "num_experts_per_tok",
      "num_hidden_layers",
      "num_key_value_heads",
      "num_local_experts",
      "num_nextn_predict_layers",
      "output_router_logits",
      "pad_token_id",
      "partial_rotary_factor",
      "pretraining_tp",
      "q_lora_rank",
      "qk_head_dim",
      "qk_nope_head_dim",
      "qk_rope_head_dim",
      "quantization_config",
      "rms_norm_eps",
      "rope_interleave",
      "rope_parameters",
      "rope_scaling",
      "rope_theta",
      "routed_scaling_factor",
      "router_aux_loss_coef",
      "router_jitter_noise",
      "scoring_func",
      "seq_aux",
      "sliding_window",
      "tie_word_embeddings",
      "topk_group",
      "topk_method",
      "torch_dtype",
      "transformers_version",
      "use_cache",
      "use_sliding_window",
      "v_head_dim",
      "vocab_size",
      // of rope_scaling and rope_parameters
      "attention_factor",
      "beta_fast",
      "beta_slow",
      "factor",
      "high_freq_factor",
      "low_freq_factor",
      "mscale",
      "mscale_all_dim",
      "original_max_position_embeddings",
      "rope_type",
      "truncate",
      "type",
  });
  return std::find(kKnown.begin(), kKnown.end(), key) != kKnown.end();
}

}  // namespace sinew
