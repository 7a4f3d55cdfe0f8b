#include "model/attention.hpp"

#include <optional>

#include "ops/attention.hpp"
#include "ops/checkpoint.hpp"
#include "ops/fused.hpp"
#include "ops/ring_attention.hpp"
#include "ops/rms_norm.hpp"
#include "ops/rope.hpp"
#include "ops/rotary_attention.hpp"
#include "ops/sequence_parallel.hpp"
#include "ops/tensor.hpp"

namespace sinew {
namespace {

using at::Tensor;

struct Projection {
  Tensor weight, bias;  // bias undefined when the model has none
  Projection(const ParameterStore& parameters, const std::string& name)
      : weight(parameters.get(name + ".weight")), bias(parameters.find(name + ".bias")) {}
  Tensor operator()(const Tensor& x) const { return project(x, weight, bias); }
  // Of a part of the inputs: the sum over the members of the tensor group, each for its own tokens.
  Tensor summed(const Tensor& x, const ForwardContext& context) const {
    if (size_of(context.cut.tensor) == 1) return (*this)(x);
    const auto y = scatter_token_sum(project(x, weight), context.cut.tensor);
    return bias.defined() ? y + bias : y;
  }
};

// x [B, own, ..] -> [B, n, ..]
Tensor gathered(const Tensor& x, const ForwardContext& context) {
  return gather_tokens(x, context.cut.tensor);
}

// One of the two operations of rotary_attention.hpp; with selective recomputation what it made is not kept.
// (The fused one keeps only its result and a number a query anyway.)
Tensor whole(const std::function<Tensor(const std::vector<Tensor>&)>& operation,
             const std::vector<Tensor>& inputs, const ForwardContext& context) {
  if (context.recompute != Recompute::selective || fused(inputs[0])) return operation(inputs);
  return checkpoint([operation](const std::vector<Tensor>& in) { return std::vector<Tensor>{operation(in)}; },
                    inputs)[0];
}

// The attention core; with selective recomputation its softmax is not kept.
Tensor core(const Tensor& q, const Tensor& k, const Tensor& v, double scale, const ForwardContext& context) {
  if (context.recompute != Recompute::selective) return attention(q, k, v, scale, context.documents);
  const auto body = [scale, documents = context.documents](const std::vector<Tensor>& in) {
    return std::vector<Tensor>{attention(in[0], in[1], in[2], scale, documents)};
  };
  return checkpoint(body, {q, k, v})[0];
}

class LatentAttention : public SelfAttention {
 public:
  LatentAttention(const ModelConfig& config, const ParameterStore& parameters, std::int64_t layer,
                  const std::string& prefix)
      : config_(config),
        layer_(layer),
        scale_(config.softmax_scale()),
        kv_a_(parameters, prefix + "kv_a_proj_with_mqa"),
        kv_norm_(parameters.get(prefix + "kv_a_layernorm.weight")),
        kv_b_(parameters.get(prefix + "kv_b_proj.weight")),
        out_(parameters, prefix + "o_proj"),
        query_(parameters, prefix + (config.q_lora_rank ? "q_b_proj" : "q_proj")) {
    if (config.q_lora_rank) {
      q_a_.emplace(parameters, prefix + "q_a_proj");
      q_norm_ = parameters.get(prefix + "q_a_layernorm.weight");
    }
  }

  Tensor forward(const Tensor& x, const ForwardContext& context) const override {
    const auto nope = config_.qk_nope_head_dim, rotated = config_.qk_rope_head_dim;
    if (context.cache == nullptr) return out_.summed(uncached(x, context), context);
    const auto q = queries(x);  // [B, T, heads, nope + rope]
    const auto q_nope = q.narrow(-1, 0, nope);
    const auto q_pe = rope(q.narrow(-1, nope, rotated), context.cos, context.sin, config_.rope_layout);

    const auto compressed = kv_a_(x);  // [B, T, kv_lora + rope]
    const auto latent =
        rms_norm(compressed.narrow(-1, 0, config_.kv_lora_rank), kv_norm_, config_.inner_norm_eps);
    const auto k_pe = rope(compressed.narrow(-1, config_.kv_lora_rank, rotated).unsqueeze(2), context.cos,
                           context.sin, config_.rope_layout)
                          .squeeze(2);  // [B, T, rope], shared by all heads
    const auto all = context.cache->append_latents(layer_, at::cat({latent, k_pe}, -1));
    const auto attended = x.size(1) <= kAbsorbedQueries  // [B, heads, T, v]
                              ? absorbed(q_nope, q_pe, all)
                              : expanded(q_nope, q_pe, all.narrow(-1, 0, config_.kv_lora_rank),
                                         all.narrow(-1, config_.kv_lora_rank, rotated), context);
    return out_(attended.transpose(1, 2).flatten(2));
  }

 private:
  // Up to this many new tokens against a cache, it is cheaper to bring the queries into the latent space
  // (DeepSeek-V2 appendix C) than every cached latent out of it.
  static constexpr std::int64_t kAbsorbedQueries = 8;

  Tensor queries(const Tensor& x) const {
    const auto q = q_a_ ? query_(rms_norm((*q_a_)(x), q_norm_, config_.inner_norm_eps)) : query_(x);
    return q.unflatten(-1, {config_.num_attention_heads, -1});
  }

  // The heads of this process, over the tokens of its tensor group: [B, n, heads * v]. What is the same for
  // all heads is computed by each member for its own tokens, and what travels is the latents.
  Tensor uncached(const Tensor& x, const ForwardContext& context) const {
    const auto lora = config_.kv_lora_rank, rotated = config_.qk_rope_head_dim;
    const auto compressed = kv_a_(x);  // [B, T, kv_lora + rope]
    auto latent = rms_norm(compressed.narrow(-1, 0, lora), kv_norm_, config_.inner_norm_eps);
    auto k_pe = compressed.narrow(-1, lora, rotated);
    auto query_input = q_a_ ? rms_norm((*q_a_)(x), q_norm_, config_.inner_norm_eps) : x;
    if (size_of(context.cut.tensor) > 1) {
      const auto all = gathered(at::cat({query_input, latent, k_pe}, -1), context);
      const auto width = query_input.size(-1);
      query_input = all.narrow(-1, 0, width);
      latent = all.narrow(-1, width, lora);
      k_pe = all.narrow(-1, width + lora, rotated);
    }
    const auto nope = config_.qk_nope_head_dim;
    const auto q = query_(query_input).unflatten(-1, {-1, nope + rotated});  // [B, n, heads, nope + rope]
    const auto kv = project(latent, kv_b_).unflatten(-1, {-1, nope + config_.v_head_dim});
    const Rotation rotation{context.cos, context.sin, config_.rope_layout};
    const auto operation = [rotation, scale = scale_, documents = context.documents,
                            ring = context.cut.context](const std::vector<Tensor>& in) {
      return size_of(ring) > 1 ? latent_ring(in[0], in[1], in[2], rotation, scale, documents, ring)
                               : latent_attention(in[0], in[1], in[2], rotation, scale, documents);
    };
    return whole(operation, {q, kv, k_pe}, context);
  }

  static Tensor latent_ring(const Tensor& q, const Tensor& kv, const Tensor& k_pe, const Rotation& r,
                            double scale, const Tensor& documents, const GroupPtr& ring) {
    const auto rotated = k_pe.size(-1), nope = q.size(-1) - rotated, heads = q.size(2);
    const auto q_pe = rope(q.narrow(-1, nope, rotated), r.cos, r.sin, r.layout);
    const auto shared = rope(k_pe.unsqueeze(2), r.cos, r.sin, r.layout).expand({-1, -1, heads, -1});
    return ring_attention(at::cat({q.narrow(-1, 0, nope), q_pe}, -1),
                          at::cat({kv.narrow(-1, 0, nope), shared}, -1),
                          kv.narrow(-1, nope, kv.size(-1) - nope), scale, documents, ring)
        .flatten(2);
  }

  // q_nope, q_pe [B, T, heads, ..], latent [B, S, kv_lora], k_pe [B, S, rope].
  Tensor expanded(const Tensor& q_nope, const Tensor& q_pe, const Tensor& latent, const Tensor& k_pe,
                  const ForwardContext& context) const {
    const auto heads = config_.num_attention_heads, nope = config_.qk_nope_head_dim;
    const auto kv = project(latent, kv_b_).unflatten(-1, {heads, -1});  // [B, S, heads, nope + v]
    const auto shared = k_pe.unsqueeze(2).expand({-1, -1, heads, -1});
    const auto q = at::cat(std::vector<Tensor>{q_nope, q_pe}, -1).transpose(1, 2);
    const auto k = at::cat({kv.narrow(-1, 0, nope), shared}, -1).transpose(1, 2);
    const auto v = kv.narrow(-1, nope, config_.v_head_dim).transpose(1, 2);
    return core(q, k, v, scale_, context);
  }

  // One key head for all query heads: keys are the cached latents themselves. cached [B, S, kv_lora + rope].
  Tensor absorbed(const Tensor& q_nope, const Tensor& q_pe, const Tensor& cached) const {
    const auto heads = config_.num_attention_heads, nope = config_.qk_nope_head_dim;
    const auto weight = kv_b_.view({heads, nope + config_.v_head_dim, config_.kv_lora_rank});
    const auto up_k = weight.narrow(1, 0, nope);                     // [heads, nope, kv_lora]
    const auto up_v = weight.narrow(1, nope, config_.v_head_dim);    // [heads, v, kv_lora]
    const auto q_latent = at::matmul(q_nope.transpose(1, 2), up_k);  // [B, heads, T, kv_lora]
    const auto q = at::cat({q_latent, q_pe.transpose(1, 2)}, -1);
    const auto keys = cached.unsqueeze(1), values = keys.narrow(-1, 0, config_.kv_lora_rank);
    const auto mixed = attention(q, keys, values, scale_);  // [B, heads, T, kv_lora]
    return at::matmul(mixed, up_v.transpose(1, 2));
  }

  ModelConfig config_;
  std::int64_t layer_;
  double scale_;
  Projection kv_a_;
  Tensor kv_norm_, kv_b_;
  Projection out_, query_;
  std::optional<Projection> q_a_;
  Tensor q_norm_;
};

class GroupedAttention : public SelfAttention {
 public:
  GroupedAttention(const ModelConfig& config, const ParameterStore& parameters, std::int64_t layer,
                   const std::string& prefix)
      : config_(config),
        layer_(layer),
        scale_(config.softmax_scale()),
        q_(parameters, prefix + "q_proj"),
        k_(parameters, prefix + "k_proj"),
        v_(parameters, prefix + "v_proj"),
        out_(parameters, prefix + "o_proj") {
    if (config.qk_norm) {
      q_norm_ = parameters.get(prefix + "q_norm.weight");
      k_norm_ = parameters.get(prefix + "k_norm.weight");
    }
  }

  Tensor forward(const Tensor& x, const ForwardContext& context) const override {
    const auto all_tokens = gathered(x, context);
    const auto q = heads(q_(all_tokens), q_norm_), k = heads(k_(all_tokens), k_norm_),
               v = heads(v_(all_tokens), {});
    const Rotation rotation{context.cos, context.sin, config_.rope_layout};
    if (context.cache == nullptr) {
      const auto operation = [rotation, scale = scale_, documents = context.documents,
                              ring = context.cut.context](const std::vector<Tensor>& in) {
        if (size_of(ring) == 1) return grouped_attention(in[0], in[1], in[2], rotation, scale, documents);
        const auto turned = [&](const Tensor& y) {
          return rope(y, rotation.cos, rotation.sin, rotation.layout);
        };
        return ring_attention(turned(in[0]), turned(in[1]), in[2], scale, documents, ring).flatten(2);
      };
      return out_.summed(whole(operation, {q, k, v}, context), context);
    }
    const auto turned = [&](const Tensor& y) {
      return rope(y, rotation.cos, rotation.sin, rotation.layout).transpose(1, 2);
    };
    const auto all = context.cache->append(layer_, turned(k), v.transpose(1, 2));
    const auto attended = core(turned(q), all.keys, all.values, scale_, context);
    return out_(attended.transpose(1, 2).flatten(2));
  }

 private:
  // [B, T, heads * d] -> [B, T, heads, d], normalised head by head where asked.
  Tensor heads(const Tensor& flat, const Tensor& norm) const {
    const auto x = flat.unflatten(-1, {-1, config_.head_dim});
    return norm.defined() ? rms_norm(x, norm, config_.rms_norm_eps) : x;
  }

  ModelConfig config_;
  std::int64_t layer_;
  double scale_;
  Projection q_, k_, v_, out_;
  Tensor q_norm_, k_norm_;
};

}  // namespace

std::unique_ptr<SelfAttention> make_attention(const ModelConfig& config, const ParameterStore& parameters,
                                              std::int64_t layer, const std::string& prefix) {
  if (config.attention == Attention::mla) {
    return std::make_unique<LatentAttention>(config, parameters, layer, prefix);
  }
  return std::make_unique<GroupedAttention>(config, parameters, layer, prefix);
}

}  // namespace sinew
