// What follows from a ModelConfig: its tensors, their counts, and what they cost.
#include <algorithm>
#include <cmath>

#include "config/family.hpp"
#include "config/rope_json.hpp"

namespace sinew {
namespace {

class SpecBuilder {
 public:
  explicit SpecBuilder(const ModelConfig& config) : c_(config), names_(moe_names(config)) {}

  std::vector<TensorSpec> build() {
    add("model.embed_tokens.weight", {c_.vocab_size, c_.hidden_size});
    for (std::int64_t l = 0; l < c_.num_hidden_layers; ++l) layer(l);
    add("model.norm.weight", {c_.hidden_size});
    if (!c_.tie_word_embeddings) add("lm_head.weight", {c_.vocab_size, c_.hidden_size});
    for (std::int64_t k = 0; k < c_.num_nextn_predict_layers; ++k) mtp_layer(c_.num_hidden_layers + k);
    return std::move(specs_);
  }

 private:
  const ModelConfig& c_;
  MoeNames names_;
  std::vector<TensorSpec> specs_;

  void add(std::string name, std::vector<std::int64_t> shape) {
    specs_.push_back({std::move(name), std::move(shape)});
  }
  void linear(const std::string& name, std::int64_t out, std::int64_t in, bool bias = false) {
    add(name + ".weight", {out, in});
    if (bias) add(name + ".bias", {out});
  }

  void layer(std::int64_t index) {
    const std::string prefix = fmt::format("model.layers.{}.", index);
    add(prefix + "input_layernorm.weight", {c_.hidden_size});
    c_.attention == Attention::mla ? mla(prefix + "self_attn.") : gqa(prefix + "self_attn.");
    add(prefix + "post_attention_layernorm.weight", {c_.hidden_size});
    if (c_.ffn_kind(index) == FfnKind::moe) {
      moe(prefix + std::string(names_.module) + ".");
    } else {
      swiglu(prefix + "mlp.", "gate_proj", "up_proj", "down_proj", c_.intermediate_size);
    }
  }

  void mla(const std::string& prefix) {
    const auto heads = c_.num_attention_heads, query = heads * c_.qk_head_dim();
    if (c_.q_lora_rank) {
      linear(prefix + "q_a_proj", *c_.q_lora_rank, c_.hidden_size);
      add(prefix + "q_a_layernorm.weight", {*c_.q_lora_rank});
      linear(prefix + "q_b_proj", query, *c_.q_lora_rank);
    } else {
      linear(prefix + "q_proj", query, c_.hidden_size);
    }
    linear(prefix + "kv_a_proj_with_mqa", c_.kv_lora_rank + c_.qk_rope_head_dim, c_.hidden_size);
    add(prefix + "kv_a_layernorm.weight", {c_.kv_lora_rank});
    linear(prefix + "kv_b_proj", heads * (c_.qk_nope_head_dim + c_.v_head_dim), c_.kv_lora_rank);
    linear(prefix + "o_proj", c_.hidden_size, heads * c_.v_head_dim);
  }

  void gqa(const std::string& prefix) {
    const auto query = c_.num_attention_heads * c_.head_dim, kv = c_.num_key_value_heads * c_.head_dim;
    linear(prefix + "q_proj", query, c_.hidden_size, c_.attention_bias);
    linear(prefix + "k_proj", kv, c_.hidden_size, c_.attention_bias);
    linear(prefix + "v_proj", kv, c_.hidden_size, c_.attention_bias);
    linear(prefix + "o_proj", c_.hidden_size, query, c_.attention_bias);
    if (!c_.qk_norm) return;
    add(prefix + "q_norm.weight", {c_.head_dim});
    add(prefix + "k_norm.weight", {c_.head_dim});
  }

  void swiglu(const std::string& prefix, std::string_view gate, std::string_view up, std::string_view down,
              std::int64_t width) {
    linear(prefix + std::string(gate), width, c_.hidden_size);
    linear(prefix + std::string(up), width, c_.hidden_size);
    linear(prefix + std::string(down), c_.hidden_size, width);
  }

  void moe(const std::string& prefix) {
    const MoeConfig& moe = c_.moe;
    linear(prefix + "gate", moe.n_routed_experts, c_.hidden_size);
    if (moe.topk_method == TopkMethod::noaux_tc)
      specs_.push_back({prefix + "gate.e_score_correction_bias", {moe.n_routed_experts}, true, true});
    for (std::int64_t e = 0; e < moe.n_routed_experts; ++e)
      swiglu(fmt::format("{}experts.{}.", prefix, e), names_.gate, names_.up, names_.down,
             moe.moe_intermediate_size);
    if (moe.n_shared_experts > 0)
      swiglu(prefix + "shared_experts.", "gate_proj", "up_proj", "down_proj",
             moe.n_shared_experts * moe.moe_intermediate_size);
  }

  // A whole decoder layer, the two norms and the projection before it, and the norm before the shared head.
  void mtp_layer(std::int64_t index) {
    const std::string prefix = fmt::format("model.layers.{}.", index);
    add(prefix + "enorm.weight", {c_.hidden_size});
    add(prefix + "hnorm.weight", {c_.hidden_size});
    linear(prefix + "eh_proj", c_.hidden_size, 2 * c_.hidden_size);
    layer(index);
    add(prefix + "shared_head.norm.weight", {c_.hidden_size});
  }
};

std::int64_t elements(const TensorSpec& spec) {
  std::int64_t count = 1;
  for (const auto size : spec.shape) count *= size;
  return count;
}

std::int64_t moe_layers(const ModelConfig& config, std::int64_t first, std::int64_t last) {
  std::int64_t count = 0;
  for (auto l = first; l < last; ++l) count += config.ffn_kind(l) == FfnKind::moe ? 1 : 0;
  return count;
}

// Elements of the routed experts that a token does not visit, over layers [first, last).
std::int64_t idle_elements(const ModelConfig& config, std::int64_t first, std::int64_t last) {
  const MoeConfig& moe = config.moe;
  return moe_layers(config, first, last) * (moe.n_routed_experts - moe.num_experts_per_tok) * 3 *
         moe.moe_intermediate_size * config.hidden_size;
}

// Whether `name` belongs to layer `first` or a later one.
bool in_mtp(const TensorSpec& spec, std::int64_t first) {
  constexpr std::string_view kLayers = "model.layers.";
  return spec.name.starts_with(kLayers) && std::stoll(spec.name.substr(kLayers.size())) >= first;
}

}  // namespace

MoeNames moe_names(const ModelConfig& config) { return family_of(config.model_type).moe_names; }

FfnKind ModelConfig::ffn_kind(std::int64_t layer) const {
  if (moe.n_routed_experts == 0) return FfnKind::dense;
  const bool listed =
      std::find(moe.mlp_only_layers.begin(), moe.mlp_only_layers.end(), layer) != moe.mlp_only_layers.end();
  const bool sparse = layer >= moe.first_k_dense_replace && layer % moe.moe_layer_freq == 0 &&
                      (layer + 1) % moe.decoder_sparse_step == 0 && !listed;
  return sparse ? FfnKind::moe : FfnKind::dense;
}

std::int64_t ModelConfig::rope_dim() const {
  return attention == Attention::mla ? qk_rope_head_dim : head_dim;
}

std::int64_t ModelConfig::qk_head_dim() const {
  return attention == Attention::mla ? qk_nope_head_dim + qk_rope_head_dim : head_dim;
}

std::int64_t ModelConfig::value_head_dim() const {
  return attention == Attention::mla ? v_head_dim : head_dim;
}

double ModelConfig::softmax_scale() const {
  const double scale = 1 / std::sqrt(static_cast<double>(qk_head_dim()));
  if (attention != Attention::mla || !yarn) return scale;
  const double m = yarn_mscale(yarn->factor, yarn->mscale_all_dim);
  return scale * m * m;
}

std::vector<TensorSpec> tensor_specs(const ModelConfig& config) { return SpecBuilder(config).build(); }

ParameterCounts count_parameters(const ModelConfig& config) {
  ParameterCounts counts;
  const auto layers = config.num_hidden_layers;
  for (const TensorSpec& spec : tensor_specs(config))
    (in_mtp(spec, layers) ? counts.mtp : counts.total) += elements(spec);
  counts.embedding = config.vocab_size * config.hidden_size;
  counts.active = counts.total - idle_elements(config, 0, layers);
  return counts;
}

std::int64_t kv_elements_per_token(const ModelConfig& config) {
  const auto layer = config.attention == Attention::mla ? config.kv_lora_rank + config.qk_rope_head_dim
                                                        : 2 * config.num_key_value_heads * config.head_dim;
  return config.num_hidden_layers * layer;
}

double train_flops_per_token(const ModelConfig& config, std::int64_t sequence) {
  const auto layers = config.num_hidden_layers + config.num_nextn_predict_layers;
  std::int64_t matrices = -idle_elements(config, 0, layers);
  for (const TensorSpec& spec : tensor_specs(config))
    if (spec.shape.size() == 2 && spec.name != "model.embed_tokens.weight") matrices += elements(spec);
  // The head: once for the next token (a tied one is not among the tensors) and once for each MTP layer.
  const auto heads = config.num_nextn_predict_layers + (config.tie_word_embeddings ? 1 : 0);
  matrices += heads * config.vocab_size * config.hidden_size;
  // Forward, scores and values: 2 x heads x (qk + v) x sequence / 2; backward costs twice that.
  const double attention =
      3.0 * static_cast<double>(layers) * static_cast<double>(config.num_attention_heads) *
      static_cast<double>(config.qk_head_dim() + config.value_head_dim()) * static_cast<double>(sequence);
  return 6.0 * static_cast<double>(matrices) + attention;
}

}  // namespace sinew
