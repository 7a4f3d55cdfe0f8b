// The shapes the planner costs. Made from a ModelConfig, or from the row of a published run (whose models
// include ones Sinew does not train: ungated feed-forwards, learned positions, MoE on every other layer).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "config/model_config.hpp"

namespace sinew::plan {

enum class AttentionShape { full, window };

struct Network {
  std::string name;
  std::int64_t layers = 0, hidden = 0, vocab = 0;
  std::int64_t heads = 0, kv_heads = 0, head_dim = 0, value_dim = 0;  // value_dim differs for MLA
  bool mla = false;
  std::int64_t q_lora = 0, kv_lora = 0, rope_dim = 0;  // MLA; q_lora 0: one q_proj
  std::int64_t ffn = 0;                                // dense feed-forward width
  bool gated = true;
  std::int64_t experts = 0, top_k = 0, expert_ffn = 0, shared_ffn = 0;  // shared_ffn: of all shared experts
  std::int64_t dense_first = 0, moe_every = 1;
  std::int64_t groups = 1, groups_per_token = 1;  // node-limited routing
  std::int64_t mtp_layers = 0;
  std::int64_t window = 0, window_every = 1;  // sliding window on layers with index % window_every == 0
  bool tied = false;
  bool biases = false;          // GPT-2 style linear layers and LayerNorms
  bool parallel_block = false;  // attention and feed-forward side by side (PaLM)
  bool qk_norm = false;
  bool attention_bias = false;           // of q, k, v and the output
  bool gate_bias = false;                // an entry an expert for the choice alone (DeepSeek-V3)
  std::vector<std::uint8_t> moe_layers;  // [layers] where no rule says which have experts; else empty

  bool is_moe(std::int64_t layer) const {
    if (!moe_layers.empty()) return moe_layers[static_cast<std::size_t>(layer)] != 0;
    return experts > 0 && layer >= dense_first && (layer + 1) % moe_every == 0;
  }
  bool is_windowed(std::int64_t layer) const { return window > 0 && layer % window_every == 0; }
};

Network network_from(const ModelConfig& config, const std::string& name);

// Elements of one layer's tensors, whole model (not divided by any layout).
struct LayerParameters {
  double attention = 0, norms = 0;
  double dense_ffn = 0;  // 0 in a MoE layer
  double router = 0, shared = 0, one_expert = 0;
};
LayerParameters layer_parameters(const Network& network, bool moe);

struct NetworkCounts {
  double total = 0;   // without MTP
  double active = 0;  // of one token, embedding and head included
  double embedding = 0;
  double mtp = 0;
};
NetworkCounts count(const Network& network);

// Model FLOPs of one trained token: 6 x matrix parameters used, head included, and attention over half the
// square (causal) or the window.
double model_flops_per_token(const Network& network, std::int64_t sequence);

}  // namespace sinew::plan
