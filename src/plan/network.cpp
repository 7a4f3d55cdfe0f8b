#include "plan/network.hpp"

#include <algorithm>

namespace sinew::plan {

Network network_from(const ModelConfig& c, const std::string& name) {
  Network n;
  n.name = name;
  n.layers = c.num_hidden_layers;
  n.hidden = c.hidden_size;
  n.vocab = c.vocab_size;
  n.heads = c.num_attention_heads;
  n.kv_heads = c.num_key_value_heads;
  n.head_dim = c.qk_head_dim();
  n.value_dim = c.value_head_dim();
  n.mla = c.attention == Attention::mla;
  n.q_lora = n.mla ? c.q_lora_rank.value_or(0) : 0;
  n.kv_lora = c.kv_lora_rank;
  n.rope_dim = c.qk_rope_head_dim;
  n.ffn = c.intermediate_size;
  n.experts = c.moe.n_routed_experts;
  n.top_k = c.moe.num_experts_per_tok;
  n.expert_ffn = c.moe.moe_intermediate_size;
  n.shared_ffn = c.moe.n_shared_experts * c.moe.moe_intermediate_size;
  n.dense_first = c.moe.first_k_dense_replace;
  n.moe_every = std::max<std::int64_t>(1, c.moe.moe_layer_freq);
  n.groups = c.moe.n_group;
  n.groups_per_token = c.moe.topk_group;
  n.mtp_layers = c.num_nextn_predict_layers;
  n.tied = c.tie_word_embeddings;
  n.qk_norm = c.qk_norm;
  n.attention_bias = c.attention_bias;
  n.gate_bias = n.experts > 0 && c.moe.topk_method == TopkMethod::noaux_tc;
  for (std::int64_t layer = 0; layer < n.layers; ++layer)
    if (n.is_moe(layer) != (c.ffn_kind(layer) == FfnKind::moe)) {
      for (std::int64_t l = 0; l < n.layers; ++l) n.moe_layers.push_back(c.ffn_kind(l) == FfnKind::moe);
      break;
    }
  return n;
}

LayerParameters layer_parameters(const Network& n, bool moe) {
  const double h = static_cast<double>(n.hidden), heads = static_cast<double>(n.heads);
  LayerParameters p;
  const double up = n.gated ? 2 : 1;
  if (n.mla) {
    const double nope = static_cast<double>(n.head_dim - n.rope_dim), kv = static_cast<double>(n.kv_lora);
    const double q = static_cast<double>(n.q_lora), wide = heads * static_cast<double>(n.head_dim);
    p.attention =
        (n.q_lora > 0 ? h * q + q + q * wide : h * wide) + h * (kv + static_cast<double>(n.rope_dim)) + kv +
        kv * heads * (nope + static_cast<double>(n.value_dim)) + heads * static_cast<double>(n.value_dim) * h;
  } else {
    const double d = static_cast<double>(n.head_dim), kv = static_cast<double>(n.kv_heads);
    p.attention = h * d * (heads + 2 * kv) + heads * d * h +
                  (n.biases || n.attention_bias ? d * (heads + 2 * kv) + h : 0) + (n.qk_norm ? 2 * d : 0);
  }
  p.norms = (n.parallel_block ? 1 : 2) * h * (n.biases ? 2 : 1);
  const auto mlp = [&](double width) { return h * width * (up + 1) + (n.biases ? width * up + h : 0); };
  if (moe) {
    p.router = h * static_cast<double>(n.experts);
    p.shared = n.shared_ffn > 0 ? mlp(static_cast<double>(n.shared_ffn)) : 0;
    p.one_expert = mlp(static_cast<double>(n.expert_ffn));
  } else {
    p.dense_ffn = mlp(static_cast<double>(n.ffn));
  }
  return p;
}

NetworkCounts count(const Network& n) {
  NetworkCounts c;
  const double h = static_cast<double>(n.hidden);
  c.embedding = static_cast<double>(n.vocab) * h;
  c.total = c.embedding * (n.tied ? 1 : 2) + h;
  c.active = c.total;
  for (std::int64_t layer = 0; layer < n.layers; ++layer) {
    const bool moe = n.is_moe(layer);
    const LayerParameters p = layer_parameters(n, moe);
    const double common = p.attention + p.norms + p.dense_ffn + p.router + p.shared +
                          (moe && n.gate_bias ? static_cast<double>(n.experts) : 0);
    c.total += common + (moe ? static_cast<double>(n.experts) * p.one_expert : 0);
    c.active += common + (moe ? static_cast<double>(n.top_k) * p.one_expert : 0);
  }
  if (n.mtp_layers > 0) {
    const LayerParameters p = layer_parameters(n, n.experts > 0);
    const double layer =
        p.attention + p.norms + p.dense_ffn + p.router + p.shared +
        (n.experts > 0 ? static_cast<double>(n.experts) * (p.one_expert + (n.gate_bias ? 1 : 0)) : 0);
    c.mtp =
        static_cast<double>(n.mtp_layers) * (layer + 2 * h * h + 3 * h);  // eh_proj, enorm, hnorm, head norm
  }
  return c;
}

double model_flops_per_token(const Network& n, std::int64_t sequence) {
  const double h = static_cast<double>(n.hidden);
  double matrices = static_cast<double>(n.vocab) * h;
  double attention = 0;
  for (std::int64_t layer = 0; layer < n.layers; ++layer) {
    const bool moe = n.is_moe(layer);
    const LayerParameters p = layer_parameters(n, moe);
    matrices += p.attention + p.dense_ffn + p.router + p.shared +
                (moe ? static_cast<double>(n.top_k) * p.one_expert : 0);
    const double span = n.is_windowed(layer)
                            ? std::min(static_cast<double>(n.window), (static_cast<double>(sequence) + 1) / 2)
                            : static_cast<double>(sequence) / 2;
    attention += 2 * span * static_cast<double>(n.heads * (n.head_dim + n.value_dim));
  }
  if (n.mtp_layers > 0) {
    const LayerParameters p = layer_parameters(n, n.experts > 0);
    const double times = static_cast<double>(n.mtp_layers);
    matrices +=
        times * (p.attention + p.dense_ffn + p.router + p.shared +
                 static_cast<double>(n.top_k) * p.one_expert + 2 * h * h + static_cast<double>(n.vocab) * h);
    attention +=
        times * static_cast<double>(sequence) * static_cast<double>(n.heads * (n.head_dim + n.value_dim));
  }
  return 6 * matrices + 3 * attention;
}

}  // namespace sinew::plan
