#include "plan/inference.hpp"

#include <algorithm>
#include <cmath>

#include "base/error.hpp"

namespace sinew::plan {
namespace {

// Elements read by a decode step: everything dense, and the experts that a batch touches.
struct Elements {
  double dense = 0, expert_each = 0, moe_layers = 0;
};

Elements elements(const Network& n) {
  Elements e;
  e.dense = static_cast<double>(n.vocab * n.hidden);  // the head; the embedding is a lookup
  for (std::int64_t layer = 0; layer < n.layers; ++layer) {
    const bool moe = n.is_moe(layer);
    const LayerParameters p = layer_parameters(n, moe);
    e.dense += p.attention + p.norms + p.dense_ffn + p.router + p.shared;
    if (moe) e.expert_each = p.one_expert, e.moe_layers += 1;
  }
  return e;
}

}  // namespace

double kv_bytes_per_token(const Network& n, double bits) {
  const double each = n.mla ? static_cast<double>(n.kv_lora + n.rope_dim)
                            : static_cast<double>(n.kv_heads * (n.head_dim + n.value_dim));
  return each * static_cast<double>(n.layers) * bits / 8;
}

std::vector<ServingPoint> plan_serving(const Network& n, const Accelerator& chip, int count,
                                       const ServingJob& job) {
  require(job.weight_bits >= 1 && job.weight_bits <= 32 && job.kv_bits >= 1,
          "serving: weights take 1 to 32 bits");
  require(job.tensor >= 1 && job.expert >= 1 && count >= std::max(job.tensor, job.expert),
          "serving: {} accelerators are fewer than tensor {} or expert {}", count, job.tensor, job.expert);
  require(chip.memory_bandwidth > 0 && chip.bf16 > 0, "serving: {} has no memory bandwidth or no arithmetic",
          chip.name);
  const Elements e = elements(n);
  const double group = std::max(job.tensor, job.expert), replicas = std::floor(count / group);
  const double experts = static_cast<double>(std::max<std::int64_t>(1, n.experts)),
               top_k = static_cast<double>(n.top_k);
  const double byte = job.weight_bits / 8;
  const double all_experts = e.moe_layers * experts * e.expert_each * byte;
  const double weights =
      (e.dense * byte + static_cast<double>(n.tied ? 0 : n.vocab * n.hidden) * 2) / job.tensor +
      (job.experts_on_ssd ? job.hot_experts : 1) * all_experts / group;
  const double flops_token = 2 * (e.dense + e.moe_layers * top_k * e.expert_each);
  const double rate = 0.6 * chip.bf16 * group;  // achieved by large products; small ones are bound by memory
  const double bandwidth = 0.8 * chip.memory_bandwidth * group;
  const double length = static_cast<double>(job.prompt) + static_cast<double>(job.output) / 2;
  const double kv = kv_bytes_per_token(n, job.kv_bits);
  const auto attention_flops = [&](double span) {
    return 2 * span * static_cast<double>(n.heads * (n.head_dim + n.value_dim) * n.layers);
  };
  // MLA in a decode step: keys and values of all past tokens are made from their latents again, or queries
  // are brought into the latent space (DeepSeek-V2, appendix C): whichever is less work.
  const auto decode_flops = [&](double span) {
    if (!n.mla) return attention_flops(span);
    const double heads = static_cast<double>(n.heads), latent = static_cast<double>(n.kv_lora);
    const double nope = static_cast<double>(n.head_dim - n.rope_dim),
                 value = static_cast<double>(n.value_dim);
    const double layers = static_cast<double>(n.layers);
    const double absorbed = 2 * span * heads * (2 * latent + static_cast<double>(n.rope_dim)) * layers;
    const double expanded = attention_flops(span) + 2 * span * latent * heads * (nope + value) * layers;
    return std::min(absorbed, expanded);
  };
  std::vector<ServingPoint> points;
  for (int batch = 1; batch <= 4096; batch *= 2) {
    ServingPoint p;
    p.batch = batch;
    const double b = batch;
    const double touched = n.experts > 0 ? experts * (1 - std::pow(1 - top_k / experts, b)) : 0;
    const double expert_bytes = e.moe_layers * touched * e.expert_each * byte;
    const double from_ssd =
        job.experts_on_ssd ? expert_bytes * (1 - job.hot_experts) / (job.ssd_bandwidth * group) : 0;
    const double reading = (e.dense * byte + expert_bytes + b * length * kv) / bandwidth;
    const double computing = b * (flops_token + decode_flops(length)) / rate;
    double talking = 0;
    const double hidden_bytes = b * static_cast<double>(n.hidden * 2);
    if (job.tensor > 1)
      talking += 2 * static_cast<double>(n.layers) * (2 * hidden_bytes / std::max(1.0, chip.scaleup) + 10e-6);
    if (job.expert > 1 && n.experts > 0) {
      const double wire = job.expert > chip.scaleup_domain ? chip.network : chip.scaleup;
      talking += 2 * e.moe_layers * (top_k * hidden_bytes / job.expert / std::max(1.0, wire) + 20e-6);
    }
    const double launches = static_cast<double>(n.layers) * 12e-6;
    p.step_seconds = std::max({reading, computing, from_ssd}) + talking + launches;
    p.bound = from_ssd >= std::max(reading, computing) && from_ssd > 0 ? "SSD"
              : computing > reading                                    ? "arithmetic"
              : talking > reading                                      ? "network"
                                                                       : "memory";
    const double prompt = static_cast<double>(job.prompt);
    p.prefill_seconds = std::max(prompt * (flops_token + attention_flops(prompt / 2)) / rate,
                                 (e.dense * byte + all_experts) / bandwidth) +
                        launches;
    p.memory_bytes = weights +
                     b * (static_cast<double>(job.prompt + job.output)) * kv /
                         (n.mla ? group : job.tensor * std::max(1.0, group / job.tensor)) +
                     2e9;
    p.fits = p.memory_bytes <= chip.memory_bytes;
    // A request takes its prefill and its share of the decode steps.
    const double request = p.prefill_seconds * b + static_cast<double>(job.output) * p.step_seconds;
    p.tokens_per_second = replicas * b * static_cast<double>(job.output) / request;
    p.cost_per_million =
        p.tokens_per_second > 0 ? chip.price_hour * count / 3600 / p.tokens_per_second * 1e6 : 0;
    points.push_back(p);
    if (!p.fits) break;
  }
  return points;
}

}  // namespace sinew::plan
