#include "plan/cost.hpp"

#include <algorithm>
#include <cmath>

namespace sinew::plan {
namespace {

using C = Constant;

bool low_bits(Precision p) { return p != Precision::bf16 && p != Precision::fp32; }
double operand_bytes(Precision p) {
  return p == Precision::fp32 ? 4 : p == Precision::fp4 ? 0.56 : low_bits(p) ? 1 : 2;
}

// Builds a layer's cost operation by operation.
class Builder {
 public:
  Builder(const Setup& setup, const Constants& constants, std::vector<Operation>* operations)
      : s(setup), k(constants), operations_(operations) {
    const double sequence = static_cast<double>(s.job.sequence);
    tokens = s.layout.micro_batch * sequence / s.layout.context;
    rate_ = product_rate(s, k, s.job.precision);
    rate16_ = product_rate(s, k, s.job.precision == Precision::fp32 ? Precision::fp32 : Precision::bf16);
    const double old =
        s.software.date < 2023 && s.software.kind == Software::Kind::megatron ? k[C::elementwise_old] : 1;
    traffic_ = k[C::elementwise_bytes] * old * (s.software.eager ? k[C::elementwise_eager] : 1);
    if (s.software.kind == Software::Kind::torch)
      rate_ /= k[C::torch_products], rate16_ /= k[C::torch_products];
    kernel_ = s.software.cuda_graphs ? k[C::kernel_seconds] / 3 : k[C::kernel_seconds];
  }

  // [m, inner] x [inner, n], `copies` of them in one kernel. Rows of small products are padded to tiles.
  void product(const char* name, double m, double inner, double n, Precision precision, double copies = 1) {
    const double padded = copies > 1 ? m + 64 : m;
    const double flops = 2 * padded * inner * n * copies;
    const double in = operand_bytes(precision), rate = low_bits(precision) ? rate_ : rate16_;
    const double traffic = k[C::gemm_bytes] / s.chip.memory_bandwidth;
    const auto seconds = [&](double reads, double writes) {
      return flops / rate + copies * (reads * in + writes * 2) * traffic + kernel_;
    };
    PassCost f, bi, bw;
    f[Term::products] = seconds(m * inner + inner * n, m * n);
    bi[Term::products] = seconds(m * n + inner * n, m * inner);
    bw[Term::products] = seconds(m * n + m * inner, inner * n);
    if (low_bits(precision)) {
      const double block = precision == Precision::fp8_block || precision == Precision::fp4 ? 1.5 : 1;
      const double cast = block * k[C::quantise_bytes] * 4 * copies / s.chip.memory_bandwidth;
      f[Term::memory] = cast * m * inner + kernel_;
      bi[Term::memory] = cast * m * n + kernel_;
    }
    add(name, f, bi, bw, 2 * m * inner * n * copies, copies * ((m * inner + inner * n) * in + m * n * 2));
  }

  // Reads and writes of `bytes` in the forward pass, `backward` times as many in the backward pass.
  void memory(const char* name, double bytes, double backward, double kernels = 1) {
    PassCost f, bi;
    f[Term::memory] = bytes * traffic_ / s.chip.memory_bandwidth + kernels * kernel_;
    bi[Term::memory] = backward * bytes * traffic_ / s.chip.memory_bandwidth + kernels * kernel_;
    add(name, f, bi, {}, 0, bytes);
  }

  void add(const char* name, const PassCost& f, const PassCost& bi, const PassCost& bw, double flops,
           double bytes) {
    cost.forward += f;
    cost.backward_input += bi;
    cost.backward_weight += bw;
    if (operations_) operations_->push_back({name, flops, bytes, f.total(), bi.total() + bw.total()});
  }

  void attention_core(bool windowed);
  void tensor_traffic(const char* name, double gathers_forward, double gathers_backward);
  void context_traffic();
  void dispatch_traffic(double moe_tokens);

  double rate16() const { return rate16_; }

  const Setup& s;
  const Constants& k;
  double tokens;  // of the micro-batch on this context rank
  LayerCost cost;

 private:
  std::vector<Operation>* operations_;
  double rate_, rate16_, traffic_, kernel_;
};

// A head whose size is not a multiple of 64 (128 bytes) wastes part of every load.
double alignment_loss(double head_dim, double exponent) {
  double unit = 64;
  const auto size = static_cast<std::int64_t>(head_dim);
  while (unit > 1 && size % static_cast<std::int64_t>(unit) != 0) unit /= 2;
  // Below 8 elements (16 bytes) tensor cores cannot be used: a quarter of the rate.
  return std::pow(64 / std::max(8.0, unit), exponent) * (unit < 8 ? 4 : 1);
}

void Builder::attention_core(bool windowed) {
  const Network& n = s.network;
  const double heads = static_cast<double>(n.heads) / s.layout.tensor,
               sequence = static_cast<double>(s.job.sequence);
  const double wide = static_cast<double>(n.head_dim + n.value_dim);
  const double span = windowed ? std::min(static_cast<double>(n.window), (sequence + 1) / 2) : sequence / 2;
  const double narrow = static_cast<double>(std::min(n.head_dim, n.value_dim));
  PassCost f, bi;
  const double flops = 2 * tokens * span * heads * wide;
  if (s.software.fused_attention) {
    const double small_head = narrow >= 128 ? 1 : (narrow + 64) / 192;
    const bool early = s.software.kind != Software::Kind::megatron || s.software.date < 2024;
    const C share = s.chip.family == "hopper"      ? (early ? C::attention_hopper_early : C::attention_hopper)
                    : s.chip.family == "blackwell" ? C::attention_blackwell
                                                   : C::attention_fused;
    const double rate = rate16_ * k[share] * small_head;
    f[Term::attention] = flops / rate + kernel_;
    bi[Term::attention] = 2.5 * flops / (0.85 * rate) + 2 * kernel_;
  } else {
    // The whole square, and the score matrix through memory: written, scaled and masked, softmaxed, dropped
    // out.
    const double scores = tokens * sequence * heads;
    const double loss = alignment_loss(static_cast<double>(n.head_dim), k[C::attention_alignment]);
    const double dense = 2 * scores * wide;
    const double bandwidth = s.chip.memory_bandwidth / k[C::score_bytes];
    f[Term::attention] = dense / rate16_ * loss + 11 * scores / bandwidth + 4 * kernel_;
    bi[Term::attention] = 2 * dense / rate16_ * loss + 15 * scores / bandwidth + 8 * kernel_;
  }
  if (s.layout.recompute.attention && !s.software.fused_attention) bi += f;
  add("attention core", f, bi, {}, flops, 2 * tokens * heads * wide * 2);
}

void Builder::tensor_traffic(const char* name, double gathers_forward, double gathers_backward) {
  const int t = s.layout.tensor;
  if (t == 1) return;
  const double bytes = tokens * static_cast<double>(s.network.hidden) * 2;
  const double one = gather_seconds(s, k, bytes, t, local_members(s, t, 1));
  const double shown = s.software.overlap_tensor ? 1 - k[C::tensor_hidden] : 1;
  PassCost f, bi;
  f[Term::tensor] = one * gathers_forward * shown;
  bi[Term::tensor] = one * gathers_backward * shown;
  add(name, f, bi, {}, 0, bytes * gathers_forward);
}

// Ring attention: keys and values go round the context group behind the attention products.
void Builder::context_traffic() {
  const int c = s.layout.context;
  if (c == 1) return;
  const Network& n = s.network;
  const double kv_heads = std::max(1.0, static_cast<double>(n.mla ? n.heads : n.kv_heads) / s.layout.tensor);
  const double block = tokens * kv_heads * static_cast<double>(n.head_dim + n.value_dim) * 2;
  const int local = local_members(s, c, s.layout.tensor);
  const double bandwidth =
      local >= c ? s.chip.scaleup * k[C::tensor_link] : s.chip.network * k[C::network_link];
  const double once = (c - 1) * (block / bandwidth + k[C::collective_seconds]);
  PassCost f, bi;
  f[Term::context] = std::max(0.1 * once, once - 0.8 * cost.forward[Term::attention]);
  bi[Term::context] = std::max(0.1 * once, 2 * once - 0.8 * cost.backward_input[Term::attention]);
  add("context ring", f, bi, {}, 0, block * (c - 1));
}

// Tokens to their experts and back. `moe_tokens` leave this rank, each top_k times (or once a node).
void Builder::dispatch_traffic(double moe_tokens) {
  const int e = s.layout.expert;
  if (e == 1) return;
  const Network& n = s.network;
  const double hidden = static_cast<double>(n.hidden), top_k = static_cast<double>(n.top_k);
  const int local = local_members(s, e, s.layout.expert_tensor > 1 ? s.layout.tensor * s.layout.context : 1);
  const double nodes = static_cast<double>(e) / local;
  double reach = s.layout.node_limit > 0 ? std::min<double>(nodes, s.layout.node_limit) : nodes;
  // Group-limited routing (DeepSeek): a token's experts lie in a few of the groups, and so on fewer nodes.
  if (n.groups > n.groups_per_token && nodes > 1) {
    const double taken = static_cast<double>(n.groups_per_token);
    reach = std::min(
        reach, nodes >= static_cast<double>(n.groups) ? taken : nodes * (1 - std::pow(1 - 1 / nodes, taken)));
  }
  // Copies of a token that cross the network, and copies that stay on the fabric.
  const double distinct = reach * (1 - std::pow(1 - 1 / reach, top_k));
  const double remote =
      s.software.dedupe_dispatch ? distinct * (nodes - 1) / nodes : top_k * (nodes - 1) / nodes;
  const double inside = s.software.dedupe_dispatch ? top_k * (local - 1) / local : top_k * (local - 1) / e;
  const auto one_way = [&](double bytes_each) {
    const double element = moe_tokens * hidden * bytes_each * s.software.imbalance;
    const double net = remote > 0 ? element * remote / (s.chip.network * k[C::dispatch_link]) : 0;
    const double fabric = element * inside / (s.chip.scaleup * k[C::dispatch_link]);
    return std::max(net, fabric) + k[C::collective_seconds] * (1 + 0.1 * std::log2(static_cast<double>(e)));
  };
  const double shown = s.software.overlap_experts ? 1 - k[C::dispatch_hidden] : 1;
  PassCost f, bi;
  f[Term::expert] = shown * (one_way(s.software.dispatch_bytes) + one_way(2));
  bi[Term::expert] = shown * 2 * one_way(2);
  add("expert all-to-all", f, bi, {}, 0, moe_tokens * hidden * top_k * 4);
}

void attention_products(Builder& b) {
  const Network& n = b.s.network;
  const Precision p = b.s.job.precision;
  const double h = static_cast<double>(n.hidden), t = b.s.layout.tensor, T = b.tokens;
  const double heads = static_cast<double>(n.heads) / t;
  if (n.mla) {
    const double wide = heads * static_cast<double>(n.head_dim), latent = static_cast<double>(n.kv_lora);
    if (n.q_lora > 0) {
      b.product("q down", T, h, static_cast<double>(n.q_lora), p);
      b.product("q up", T, static_cast<double>(n.q_lora), wide, p);
    } else {
      b.product("q", T, h, wide, p);
    }
    b.product("kv down", T, h, latent + static_cast<double>(n.rope_dim), p);
    b.product("kv up", T, latent, heads * static_cast<double>(n.head_dim - n.rope_dim + n.value_dim), p);
    b.memory("latent norms and rope", 2 * T * (static_cast<double>(n.q_lora) * 2 + latent * 2 + 3 * wide),
             1.5, 4);
  } else {
    const double kv = std::max(1.0, static_cast<double>(n.kv_heads) / t), d = static_cast<double>(n.head_dim);
    b.product("qkv", T, h, d * (heads + 2 * kv), p);
    b.memory("rope and layout", 2 * T * d * (heads + kv) * (n.qk_norm ? 4 : 2), 1, n.qk_norm ? 4 : 2);
  }
}

void feed_forward(Builder& b, FeedForward kind) {
  const Network& n = b.s.network;
  const Layout& l = b.s.layout;
  const Precision p = b.s.job.precision;
  const double h = static_cast<double>(n.hidden), T = b.tokens, up = n.gated ? 2 : 1;
  const auto dense = [&](const char* in, const char* out, double width, double rows) {
    b.product(in, rows, h, up * width, p);
    b.memory("activation", 2 * rows * width * (up + 1), n.gated ? 5.0 / 3 : 1.5, 1);
    b.product(out, rows, width, h, p);
  };
  if (kind == FeedForward::dense) return dense("up", "down", static_cast<double>(n.ffn) / l.tensor, T);
  // Attention's tensor group holds different tokens for the experts once the sequence is split.
  const double moe_tokens = l.tensor > 1 && (l.sequence_parallel || l.expert_tensor == 1) ? T / l.tensor : T;
  const double local_experts = static_cast<double>(n.experts) / l.expert;
  const double top_k = static_cast<double>(n.top_k);
  b.product("router", moe_tokens, h, static_cast<double>(n.experts), Precision::bf16);
  b.memory("permute", b.k[Constant::permute_bytes] * 2 * moe_tokens * h * 2 * (1 + top_k), 1, 6);
  b.dispatch_traffic(moe_tokens);
  const double gathered = l.expert_tensor > 1 ? moe_tokens * l.tensor : moe_tokens;
  if (l.expert_tensor > 1) b.tensor_traffic("expert tensor", 2 * top_k, 2 * top_k);
  const double rows = gathered * top_k / local_experts * b.s.software.imbalance;
  const double width = static_cast<double>(n.expert_ffn) / l.expert_tensor;
  b.product("experts up", rows, h, up * width, p, local_experts);
  b.memory("expert activation", 2 * rows * local_experts * width * (up + 1), 5.0 / 3, 1);
  b.product("experts down", rows, width, h, p, local_experts);
  if (n.shared_ffn > 0) dense("shared up", "shared down", static_cast<double>(n.shared_ffn) / l.tensor, T);
  PassCost pass;
  const double each = b.k[Constant::expert_seconds] + (low_bits(p) ? b.k[Constant::expert_seconds_fp8] : 0);
  pass[Term::launch] =
      (b.k[Constant::moe_seconds] + each * local_experts) / (b.s.software.cuda_graphs ? 3 : 1);
  b.add("routing and launches", pass, pass, {}, 0, 0);
}

// Gradients are added to those of the micro-batches before: read, read and written once each.
void accumulation(Builder& b, FeedForward kind) {
  const Layout& l = b.s.layout;
  const LayerParameters p = layer_parameters(b.s.network, kind == FeedForward::moe);
  const double mine = (p.attention + p.dense_ffn + p.shared) / l.tensor + p.router +
                      p.one_expert * static_cast<double>(b.s.network.experts) / l.expert / l.expert_tensor;
  PassCost once;
  once[Term::memory] = mine * 8 / b.s.chip.memory_bandwidth;
  PassCost engine;
  if (b.s.software.deepspeed) engine[Term::launch] = b.k[Constant::deepspeed_seconds];
  b.add("gradient accumulation", {}, engine, once, 0, 0);
}

// Bytes kept for the backward pass of one layer (Korthikanti et al. 2022, section 4, by operation).
void saved_activations(Builder& b, FeedForward kind) {
  const Setup& s = b.s;
  const Network& n = s.network;
  const Layout& l = s.layout;
  const Recompute& r = l.recompute;
  const double h = static_cast<double>(n.hidden), T = b.tokens, t = l.tensor;
  const double split =
      l.sequence_parallel ? t : 1;  // how many ways the hidden state is split between products
  const bool fused = s.software.fused_experts;
  const double element = s.job.precision == Precision::fp32 ? 4 : 2;
  const double input = element * T * h / split;
  const double heads = static_cast<double>(n.heads) / t, up = n.gated ? 2 : 1;
  const double quantised = low_bits(s.job.precision) ? 0.5 : 1;  // products keep their inputs in 8 bits
  double norms = r.norm ? 0 : 2 * input;
  double attention = element * T * heads * static_cast<double>(2 * n.head_dim + 2 * n.value_dim) *
                     (n.mla && r.mla_up ? 0.4 : 1);
  if (!n.mla)
    attention = element * T *
                (heads * static_cast<double>(n.head_dim + n.value_dim) +
                 static_cast<double>(n.kv_heads) / t * static_cast<double>(n.head_dim + n.value_dim));
  if (!s.software.fused_attention && !r.attention)
    attention += 5 * T * static_cast<double>(s.job.sequence) * heads;
  double mlp = 0;
  const auto width_bytes = [&](double rows, double width) {
    return element * rows * width * (up + (r.activation || fused ? 0 : 1) * quantised);
  };
  if (kind == FeedForward::dense) mlp = width_bytes(T, static_cast<double>(n.ffn) / t);
  if (kind == FeedForward::moe) {
    const double rows =
        T / (l.expert_tensor > 1 ? 1 : t) * static_cast<double>(n.top_k) * s.software.imbalance;
    mlp = width_bytes(rows, static_cast<double>(n.expert_ffn) / l.expert_tensor) +
          (fused ? 0 : element * rows * h * quantised) +
          (n.shared_ffn > 0 ? width_bytes(T, static_cast<double>(n.shared_ffn) / t) : 0);
  }
  if (r.mlp) mlp *= 0.15;
  const double inputs = 2 * input * quantised;  // of the two product groups
  const double all = norms + attention + mlp + inputs + input;
  b.cost.saved_bytes = r.full ? input : all;
  b.cost.working_bytes = all + 2 * mlp / (up + 1);
}

}  // namespace

const char* term_name(Term term) {
  constexpr const char* names[] = {"products", "attention", "memory", "launch",
                                   "tensor",   "context",   "expert"};
  return names[static_cast<int>(term)];
}

LayerCost layer_cost(const Setup& s, const Constants& constants, FeedForward kind, bool windowed,
                     std::vector<Operation>* operations) {
  Builder b(s, constants, operations);
  const Layout& l = s.layout;
  const double h = static_cast<double>(s.network.hidden), T = b.tokens;
  const double split = l.sequence_parallel ? l.tensor : 1;
  const double norms = s.network.parallel_block ? 1 : 2;
  b.memory("norms and residuals", 2 * T * h / split * 5 * norms, 1.4, 3 * norms);
  attention_products(b);
  b.attention_core(windowed);
  b.context_traffic();
  b.product("attention out", T, static_cast<double>(s.network.heads * s.network.value_dim) / l.tensor, h,
            s.job.precision);
  feed_forward(b, kind);
  // Without sequence parallelism an all-reduce after each half; with it a gather before and a scatter after,
  // and one more gather of the input for the weight gradient.
  const bool moe_local = kind == FeedForward::moe && s.network.shared_ffn == 0;
  const double halves = s.network.parallel_block ? 1 : moe_local ? 1 : 2;
  accumulation(b, kind);
  b.tensor_traffic("tensor parallel", 2 * halves, (l.sequence_parallel ? 3 : 2) * halves);
  saved_activations(b, kind);
  const Recompute& r = l.recompute;
  if (r.full) b.cost.backward_input += b.cost.forward;
  if (r.mlp && !r.full) {
    PassCost half = b.cost.forward;
    for (double& value : half.seconds) value *= 0.5;
    b.cost.backward_input += half;
  } else if (!r.full) {
    const double part = (r.norm ? 0.4 : 0) + (r.activation ? 0.3 : 0) + (r.mla_up ? 0.3 : 0);
    b.cost.backward_input[Term::memory] += part * b.cost.forward[Term::memory];
    if (r.mla_up) b.cost.backward_input[Term::products] += 0.1 * b.cost.forward[Term::products];
  }
  return b.cost;
}

LayerCost embedding_cost(const Setup& s, const Constants& constants) {
  Builder b(s, constants, nullptr);
  b.memory("embedding", 2 * 3 * b.tokens * static_cast<double>(s.network.hidden), 1.5, 3);
  return b.cost;
}

LayerCost head_cost(const Setup& s, const Constants& constants) {
  Builder b(s, constants, nullptr);
  const double vocab = static_cast<double>(s.network.vocab) / s.layout.tensor;
  const bool plain = s.job.precision == Precision::fp32;
  b.product("head", b.tokens, static_cast<double>(s.network.hidden), vocab,
            plain ? Precision::fp32 : Precision::bf16);
  b.memory("loss", b.tokens * vocab * 10, 1, 6);
  b.cost.saved_bytes = b.tokens * vocab * 6;
  // In chunks: the gradients of the hidden states and of the head are made with the loss and kept.
  if (s.software.fused_experts)
    b.cost.saved_bytes = static_cast<double>(s.network.hidden) * ((plain ? 4 : 2) * b.tokens + 4 * vocab);
  return b.cost;
}

}  // namespace sinew::plan
