// ModelConfig: the one description of a network, read from a Hugging Face config.json. The trainer
// builds it, the engine runs it, the planner costs it, the converter maps it. Names are those of HF
// configs; sizes are elements.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace sinew {

enum class Attention { mla, gqa };
enum class RopeLayout { interleaved, half };  // pairs (x0,x1),(x2,x3).. or (x_j, x_{j+d/2})
enum class ScoringFunc { softmax, sigmoid };
enum class TopkMethod { greedy, group_limited_greedy, noaux_tc };
enum class FfnKind { dense, moe };

// How rotary frequencies stretch to longer texts; rope_frequencies() of config/rope.hpp applies whichever
// is set, so that nobody has to look at these.
// YaRN (Peng et al. 2023) as DeepSeek applies it.
struct YarnScaling {
  double factor = 1;
  double beta_fast = 32, beta_slow = 1;
  double mscale = 1, mscale_all_dim = 0;
  std::int64_t original_max_position_embeddings = 4096;
  std::optional<double> attention_factor;  // of cos and sin, where the file sets it
  bool operator==(const YarnScaling&) const = default;
};
// `rope_type` llama3: long wavelengths are divided by factor, short ones kept, those between blended.
struct Llama3Scaling {
  double factor = 8;
  double low_freq_factor = 1, high_freq_factor = 4;
  std::int64_t original_max_position_embeddings = 8192;
  bool operator==(const Llama3Scaling&) const = default;
};

struct MoeConfig {
  std::int64_t n_routed_experts = 0;     // 0: a dense model
  std::int64_t num_experts_per_tok = 0;  // top_k
  std::int64_t n_shared_experts = 0;
  std::int64_t moe_intermediate_size = 0;  // width of one routed expert
  std::int64_t first_k_dense_replace = 0;  // the first k layers are dense
  std::int64_t moe_layer_freq = 1;
  std::int64_t n_group = 1, topk_group = 1;
  ScoringFunc scoring_func = ScoringFunc::softmax;
  TopkMethod topk_method = TopkMethod::greedy;
  bool norm_topk_prob = false;
  double routed_scaling_factor = 1;
  double aux_loss_alpha = 0;  // expert-level (V2), sequence-wise (V3) or Mixtral's router_aux_loss_coef
  bool seq_aux = true;
  std::int64_t decoder_sparse_step = 1;       // qwen3_moe: layer l has experts where (l + 1) % step == 0
  std::vector<std::int64_t> mlp_only_layers;  // qwen3_moe: dense whatever the rest says
  bool operator==(const MoeConfig&) const = default;
};

struct ModelConfig {
  std::string model_type;  // deepseek_v2, deepseek_v3, mixtral, qwen3_moe, llama
  std::int64_t vocab_size = 0, hidden_size = 0;
  std::int64_t intermediate_size = 0;  // width of a dense feed-forward
  std::int64_t num_hidden_layers = 0;
  std::int64_t max_position_embeddings = 0;
  double rms_norm_eps = 1e-6;
  double initializer_range = 0.02;
  bool tie_word_embeddings = false;
  std::vector<std::int64_t> bos_token_ids, eos_token_ids;  // as in the file; empty when absent
  std::string dtype;  // of the weights, e.g. "bfloat16"; empty when absent

  Attention attention = Attention::gqa;
  std::int64_t num_attention_heads = 0, num_key_value_heads = 0;
  std::int64_t head_dim = 0;  // GQA only
  bool qk_norm = false;       // qwen3_moe: RMSNorm over each head of q and k
  bool attention_bias = false;
  std::optional<std::int64_t> q_lora_rank;  // MLA; absent: one q_proj
  std::int64_t kv_lora_rank = 0, qk_nope_head_dim = 0, qk_rope_head_dim = 0, v_head_dim = 0;  // MLA
  double inner_norm_eps = 1e-6;  // q_a_layernorm and kv_a_layernorm: 1e-6 whatever rms_norm_eps says

  double rope_theta = 10000;
  RopeLayout rope_layout = RopeLayout::half;
  std::optional<YarnScaling> yarn;
  std::optional<Llama3Scaling> llama3;
  double rope_linear_factor = 1;  // `rope_type` linear: every frequency divided by this

  MoeConfig moe;
  std::int64_t num_nextn_predict_layers = 0;  // multi-token-prediction layers (V3)

  FfnKind ffn_kind(std::int64_t layer) const;
  std::int64_t rope_dim() const;     // rotated elements of a head
  std::int64_t qk_head_dim() const;  // query/key elements of a head
  std::int64_t value_head_dim() const;
  double softmax_scale() const;  // qk_head_dim^-0.5, times YaRN's mscale_all_dim factor squared for MLA
  bool operator==(const ModelConfig&) const = default;
};

// Reads and checks a config.json. Unknown model types and inconsistent sizes throw UserError naming the
// field. `origin` is the file's name for messages.
ModelConfig parse_model_config(std::string_view json, const std::string& origin = "config.json");
// `path` is a config.json, a model directory, or the name of a preset in configs/models (e.g. "deepseek-v2").
ModelConfig load_model_config(const std::filesystem::path& path);
// The config.json that HF loaders accept; parse(write(c)) equals c.
std::string write_model_config(const ModelConfig& config);

// One tensor of the public checkpoint.
struct TensorSpec {
  std::string name;                 // HF name
  std::vector<std::int64_t> shape;  // [out, in] for linear weights
  bool fp32 = false;                // kept in fp32 in every format (e_score_correction_bias)
  bool buffer = false;              // saved but not trained by gradient (e_score_correction_bias)
};
// Every tensor, in the order: embedding, layers 0.., final norm, head, MTP layers. Shared tensors (tied
// head, MTP's copies of embedding and head) appear once, under the first name.
std::vector<TensorSpec> tensor_specs(const ModelConfig& config);

// How a family names the tensors of an MoE layer: model.layers.L.<module>.gate.weight and
// model.layers.L.<module>.experts.I.<gate|up|down>.weight.
struct MoeNames {
  std::string_view module, gate, up, down;
};
MoeNames moe_names(const ModelConfig& config);

struct ParameterCounts {
  std::int64_t total = 0;      // without MTP layers
  std::int64_t active = 0;     // used by one token, embedding and head included, without MTP
  std::int64_t embedding = 0;  // the embedding table
  std::int64_t mtp = 0;        // unique parameters of MTP layers
};
ParameterCounts count_parameters(const ModelConfig& config);

// KV-cache elements per token over all layers: MLA stores kv_lora_rank + qk_rope_head_dim a layer.
std::int64_t kv_elements_per_token(const ModelConfig& config);

// Training FLOPs (forward and backward) of one token: 6 x active matrix parameters (head included,
// embedding look-up not) plus causal attention at `sequence` tokens (half of the square). MTP layers, each
// with its pass through the head, are included.
double train_flops_per_token(const ModelConfig& config, std::int64_t sequence);

}  // namespace sinew
