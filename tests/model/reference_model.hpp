// The networks as the papers and public modeling files write them: one token at a time, in plain loops over
// doubles, whole context recomputed, every expert called for itself. Shares no code with src/ops or
// src/model.
#pragma once

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <cmath>
#include <functional>
#include <map>
#include <numbers>
#include <string>
#include <vector>

#include "model/language_model.hpp"
#include "ops/gate_reference.hpp"

namespace sinew::test {

using Row = std::vector<double>;

class ReferenceModel {
 public:
  explicit ReferenceModel(const LanguageModel& model) : c_(model.config()) {
    for (const auto& parameter : model.parameters()) {
      tensors_[parameter.name] = parameter.tensor.detach().to(at::kDouble).contiguous();
    }
  }

  // logits [T][V] of one row of tokens.
  std::vector<Row> logits(const std::vector<std::int64_t>& tokens) const {
    std::vector<Row> out;
    for (const auto& h : hidden(tokens)) out.push_back(linear(h, head()));
    return out;
  }

  // The final-norm outputs.
  std::vector<Row> hidden(const std::vector<std::int64_t>& tokens) const {
    std::vector<Row> x;
    for (const auto token : tokens) x.push_back(row("model.embed_tokens.weight", token));
    for (std::int64_t l = 0; l < c_.num_hidden_layers; ++l) x = layer(x, l);
    for (auto& h : x) h = norm(h, "model.norm.weight", c_.rms_norm_eps);
    return x;
  }

  // The loss of the first MTP layer, summed over targets: position i predicts tokens[i + 2].
  double mtp_loss_sum(const std::vector<std::int64_t>& tokens) const {
    const auto h = hidden(tokens);
    const auto prefix = fmt::format("model.layers.{}.", c_.num_hidden_layers);
    std::vector<Row> x;
    for (std::size_t i = 0; i + 1 < tokens.size(); ++i) {
      auto joined =
          norm(row("model.embed_tokens.weight", tokens[i + 1]), prefix + "enorm.weight", c_.rms_norm_eps);
      const auto second = norm(h[i], prefix + "hnorm.weight", c_.rms_norm_eps);
      joined.insert(joined.end(), second.begin(), second.end());
      x.push_back(linear(joined, prefix + "eh_proj.weight"));
    }
    x = layer(x, c_.num_hidden_layers);
    double sum = 0;
    for (std::size_t i = 0; i + 2 < tokens.size(); ++i) {
      sum += cross_entropy(linear(norm(x[i], prefix + "shared_head.norm.weight", c_.rms_norm_eps), head()),
                           tokens[i + 2]);
    }
    return sum;
  }

  static double cross_entropy(const Row& logits, std::int64_t target) {
    const double top = *std::max_element(logits.begin(), logits.end());
    double sum = 0;
    for (const double x : logits) sum += std::exp(x - top);
    return top + std::log(sum) - logits[static_cast<std::size_t>(target)];
  }

 private:
  ModelConfig c_;
  std::map<std::string, at::Tensor> tensors_;

  std::string head() const { return c_.tie_word_embeddings ? "model.embed_tokens.weight" : "lm_head.weight"; }

  Row row(const std::string& name, std::int64_t index) const {
    const auto& t = tensors_.at(name);
    const auto* data = t.data_ptr<double>() + index * t.size(1);
    return {data, data + t.size(1)};
  }

  Row linear(const Row& x, const std::string& name) const {
    const auto& w = tensors_.at(name);
    const auto* data = w.data_ptr<double>();
    Row y(static_cast<std::size_t>(w.size(0)), 0.0);
    for (std::size_t o = 0; o < y.size(); ++o) {
      for (std::size_t i = 0; i < x.size(); ++i) y[o] += data[o * x.size() + i] * x[i];
    }
    const auto bias = tensors_.find(name.substr(0, name.size() - 6) + "bias");
    if (bias != tensors_.end()) {
      for (std::size_t o = 0; o < y.size(); ++o) y[o] += bias->second.data_ptr<double>()[o];
    }
    return y;
  }

  Row norm(const Row& x, const std::string& name, double eps) const {
    const auto* w = tensors_.at(name).data_ptr<double>();
    double sum = 0;
    for (const double v : x) sum += v * v;
    const double scale = 1 / std::sqrt(sum / static_cast<double>(x.size()) + eps);
    Row y;
    for (std::size_t i = 0; i < x.size(); ++i) y.push_back(x[i] * scale * w[i]);
    return y;
  }

  // The angle of pair j of a head of d rotated elements at `position`.
  double angle(std::size_t j, std::size_t d, std::size_t position) const {
    const double plain = std::pow(c_.rope_theta, -2.0 * static_cast<double>(j) / static_cast<double>(d));
    if (c_.llama3) return static_cast<double>(position) * llama3(plain);
    if (!c_.yarn) return plain * static_cast<double>(position);
    const auto pair_turning = [&](double turns) {
      return static_cast<double>(d) *
             std::log(static_cast<double>(c_.yarn->original_max_position_embeddings) /
                      (turns * 2 * std::numbers::pi)) /
             (2 * std::log(c_.rope_theta));
    };
    const double low = std::max(0.0, std::floor(pair_turning(c_.yarn->beta_fast)));
    const double high = std::min(static_cast<double>(d) - 1, std::ceil(pair_turning(c_.yarn->beta_slow)));
    const double stretched = std::min(1.0, std::max(0.0, (static_cast<double>(j) - low) / (high - low)));
    return static_cast<double>(position) * (plain * (1 - stretched) + plain / c_.yarn->factor * stretched);
  }

  // Llama 3.1: long waves are stretched by the factor, short ones kept, those between mixed.
  double llama3(double frequency) const {
    const double wave = 2 * std::numbers::pi / frequency, factor = c_.llama3->factor;
    const double context = static_cast<double>(c_.llama3->original_max_position_embeddings);
    const double low = c_.llama3->low_freq_factor, high = c_.llama3->high_freq_factor;
    if (wave < context / high) return frequency;
    if (wave > context / low) return frequency / factor;
    const double smooth = (context / wave - low) / (high - low);
    return (1 - smooth) * frequency / factor + smooth * frequency;
  }

  void rotate(double* x, std::size_t d, std::size_t position) const {
    for (std::size_t j = 0; j < d / 2; ++j) {
      const bool adjacent = c_.rope_layout == RopeLayout::interleaved;
      double &a = x[adjacent ? 2 * j : j], &b = x[adjacent ? 2 * j + 1 : j + d / 2];
      const double c = std::cos(angle(j, d, position)), s = std::sin(angle(j, d, position)), before = a;
      a = before * c - b * s;
      b = before * s + b * c;
    }
  }

  std::vector<Row> layer(const std::vector<Row>& x, std::int64_t l) const {
    const auto prefix = fmt::format("model.layers.{}.", l);
    std::vector<Row> in;
    for (const auto& r : x) in.push_back(norm(r, prefix + "input_layernorm.weight", c_.rms_norm_eps));
    auto out =
        c_.attention == Attention::mla ? mla(in, prefix + "self_attn.") : gqa(in, prefix + "self_attn.");
    for (std::size_t t = 0; t < x.size(); ++t) {
      add(out[t], x[t]);
      const auto normed = norm(out[t], prefix + "post_attention_layernorm.weight", c_.rms_norm_eps);
      add(out[t], c_.ffn_kind(l) == FfnKind::moe
                      ? moe(normed, prefix)
                      : swiglu(normed, prefix + "mlp.", "gate_proj", "up_proj", "down_proj"));
    }
    return out;
  }

  static void add(Row& to, const Row& from, double weight = 1) {
    for (std::size_t i = 0; i < to.size(); ++i) to[i] += weight * from[i];
  }

  Row swiglu(const Row& x, const std::string& prefix, const std::string& gate, const std::string& up,
             const std::string& down) const {
    auto g = linear(x, prefix + gate + ".weight");
    const auto u = linear(x, prefix + up + ".weight");
    for (std::size_t i = 0; i < g.size(); ++i) g[i] = g[i] / (1 + std::exp(-g[i])) * u[i];
    return linear(g, prefix + down + ".weight");
  }

  Row moe(const Row& x, const std::string& prefix) const {
    const bool mixtral = c_.model_type == "mixtral";
    const auto module = prefix + (mixtral ? "block_sparse_moe." : "mlp.");
    Row bias;
    const auto found = tensors_.find(module + "gate.e_score_correction_bias");
    if (found != tensors_.end()) {
      bias.assign(found->second.data_ptr<double>(), found->second.data_ptr<double>() + found->second.numel());
    }
    const auto routing = gate_reference(linear(x, module + "gate.weight"), bias, c_);
    Row y(x.size(), 0.0);
    for (std::size_t k = 0; k < routing.experts.size(); ++k) {
      const auto expert = fmt::format("{}experts.{}.", module, routing.experts[k]);
      add(y,
          mixtral ? swiglu(x, expert, "w1", "w3", "w2")
                  : swiglu(x, expert, "gate_proj", "up_proj", "down_proj"),
          routing.weights[k]);
    }
    if (c_.moe.n_shared_experts > 0) {
      add(y, swiglu(x, module + "shared_experts.", "gate_proj", "up_proj", "down_proj"));
    }
    return y;
  }

  // Softmax of scores over the past, applied to values.
  static Row mix(const Row& scores, const std::function<const double*(std::size_t)>& value,
                 std::size_t width) {
    const double top = *std::max_element(scores.begin(), scores.end());
    double total = 0;
    Row out(width, 0.0);
    for (std::size_t s = 0; s < scores.size(); ++s) {
      const double p = std::exp(scores[s] - top);
      total += p;
      for (std::size_t i = 0; i < width; ++i) out[i] += p * value(s)[i];
    }
    for (double& v : out) v /= total;
    return out;
  }

  static double dot(const double* a, const double* b, std::size_t n) {
    double sum = 0;
    for (std::size_t i = 0; i < n; ++i) sum += a[i] * b[i];
    return sum;
  }

  std::vector<Row> mla(const std::vector<Row>& x, const std::string& prefix) const {
    const auto heads = static_cast<std::size_t>(c_.num_attention_heads);
    const auto nope = static_cast<std::size_t>(c_.qk_nope_head_dim),
               rot = static_cast<std::size_t>(c_.qk_rope_head_dim);
    const auto vdim = static_cast<std::size_t>(c_.v_head_dim),
               lora = static_cast<std::size_t>(c_.kv_lora_rank);
    double scale = 1 / std::sqrt(static_cast<double>(nope + rot));
    if (c_.yarn) scale *= std::pow(0.1 * c_.yarn->mscale_all_dim * std::log(c_.yarn->factor) + 1, 2);
    std::vector<Row> q, kv, k_pe;
    for (std::size_t t = 0; t < x.size(); ++t) {
      q.push_back(c_.q_lora_rank ? linear(norm(linear(x[t], prefix + "q_a_proj.weight"),
                                               prefix + "q_a_layernorm.weight", 1e-6),
                                          prefix + "q_b_proj.weight")
                                 : linear(x[t], prefix + "q_proj.weight"));
      for (std::size_t h = 0; h < heads; ++h) rotate(q[t].data() + h * (nope + rot) + nope, rot, t);
      const auto compressed = linear(x[t], prefix + "kv_a_proj_with_mqa.weight");
      kv.push_back(linear(
          norm(Row(compressed.begin(), compressed.begin() + lora), prefix + "kv_a_layernorm.weight", 1e-6),
          prefix + "kv_b_proj.weight"));
      k_pe.emplace_back(compressed.begin() + lora, compressed.end());
      rotate(k_pe[t].data(), rot, t);
    }
    std::vector<Row> out;
    for (std::size_t t = 0; t < x.size(); ++t) {
      Row joined;
      for (std::size_t h = 0; h < heads; ++h) {
        Row scores;
        for (std::size_t s = 0; s <= t; ++s) {
          const auto* query = q[t].data() + h * (nope + rot);
          scores.push_back(scale * (dot(query, kv[s].data() + h * (nope + vdim), nope) +
                                    dot(query + nope, k_pe[s].data(), rot)));
        }
        const auto head = mix(
            scores, [&](std::size_t s) { return kv[s].data() + h * (nope + vdim) + nope; }, vdim);
        joined.insert(joined.end(), head.begin(), head.end());
      }
      out.push_back(linear(joined, prefix + "o_proj.weight"));
    }
    return out;
  }

  std::vector<Row> gqa(const std::vector<Row>& x, const std::string& prefix) const {
    const auto heads = static_cast<std::size_t>(c_.num_attention_heads),
               d = static_cast<std::size_t>(c_.head_dim);
    const auto kv_heads = static_cast<std::size_t>(c_.num_key_value_heads);
    const auto project = [&](const Row& in, const std::string& name, std::size_t t) {
      auto y = linear(in, prefix + name + "_proj.weight");
      if (name == "v") return y;
      for (std::size_t h = 0; h < y.size() / d; ++h) {
        Row head(y.begin() + h * d, y.begin() + (h + 1) * d);
        if (c_.qk_norm) head = norm(head, prefix + name + "_norm.weight", c_.rms_norm_eps);
        rotate(head.data(), d, t);
        std::copy(head.begin(), head.end(), y.begin() + h * d);
      }
      return y;
    };
    std::vector<Row> q, k, v, out;
    for (std::size_t t = 0; t < x.size(); ++t) {
      q.push_back(project(x[t], "q", t));
      k.push_back(project(x[t], "k", t));
      v.push_back(project(x[t], "v", t));
    }
    for (std::size_t t = 0; t < x.size(); ++t) {
      Row joined;
      for (std::size_t h = 0; h < heads; ++h) {
        const auto from = h / (heads / kv_heads) * d;
        Row scores;
        for (std::size_t s = 0; s <= t; ++s) {
          scores.push_back(dot(q[t].data() + h * d, k[s].data() + from, d) /
                           std::sqrt(static_cast<double>(d)));
        }
        const auto head = mix(
            scores, [&](std::size_t s) { return v[s].data() + from; }, d);
        joined.insert(joined.end(), head.begin(), head.end());
      }
      out.push_back(linear(joined, prefix + "o_proj.weight"));
    }
    return out;
  }
};

}  // namespace sinew::test
