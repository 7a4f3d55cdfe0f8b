#include "train/lean_models.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "base/error.hpp"

namespace sinew {
namespace {

constexpr std::int64_t kHead = 32;
// DeepSeekMoE's example: each of 8 experts cut in four, one of a token's eight made shared.
constexpr std::int64_t kFineExperts = 32, kFineChosen = 7, kFineShared = 1;
constexpr std::int64_t kLargeExperts = 8, kLargeChosen = 2;
// 0.02 and 0.003 were tried at the smallest size (docs/lean.md); it is no part of the losses that are
// compared.
constexpr double kBalance = 0.02;

bool read_number(std::string_view text, std::int64_t low, std::int64_t high, std::int64_t& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() && value >= low && value <= high;
}

// The nearest whole number to a / b.
std::int64_t rounded(std::int64_t a, std::int64_t b) { return (2 * a + b) / (2 * b); }

}  // namespace

std::string_view lean_name(LeanKind kind) {
  switch (kind) {
    case LeanKind::dense:
      return "dense";
    case LeanKind::fine:
      return "fine";
    case LeanKind::top2:
      return "top2";
  }
  return "";
}

LeanKind parse_lean_kind(std::string_view name) {
  for (const LeanKind kind : kLeanKinds)
    if (lean_name(kind) == name) return kind;
  fail("no kind \"{}\"; there are dense, fine and top2", name);
}

std::string LeanSize::name() const { return fmt::format("{}x{}", hidden, layers); }

LeanSize parse_lean_size(std::string_view text) {
  LeanSize size;
  const auto x = text.find('x');
  const bool good = x != std::string_view::npos && read_number(text.substr(0, x), kHead, 4096, size.hidden) &&
                    read_number(text.substr(x + 1), 1, 128, size.layers) && size.hidden % kHead == 0;
  require(good, "\"{}\" is no size: write HIDDENxLAYERS, hidden a multiple of {} up to 4096, as in 128x5",
          text, kHead);
  return size;
}

ModelConfig lean_model(LeanKind kind, const LeanSize& size, std::int64_t vocabulary, std::int64_t sequence) {
  const std::int64_t h = size.hidden;
  ModelConfig c;
  c.model_type = "deepseek_v2";
  c.vocab_size = vocabulary;
  c.hidden_size = h;
  c.num_hidden_layers = size.layers;
  c.max_position_embeddings = sequence;
  c.attention = Attention::mla;
  c.rope_layout = RopeLayout::interleaved;
  c.num_attention_heads = c.num_key_value_heads = h / kHead;
  c.kv_lora_rank = h / 4;
  c.qk_nope_head_dim = c.qk_rope_head_dim = kHead / 2;
  c.v_head_dim = kHead;
  // Eight experts of a third of hidden are SwiGLU's usual 8/3; rows of whole cache lines.
  const std::int64_t width = std::max<std::int64_t>(8, rounded(h, 24) * 8);
  // Width of one dense network with the active elements of `fine`, times 3 so that it is whole.
  const std::int64_t active3 = 3 * (kFineChosen + kFineShared) * width + kFineExperts;
  c.intermediate_size = rounded(active3, 3);
  if (kind == LeanKind::dense) return c;
  MoeConfig& moe = c.moe;
  moe.norm_topk_prob = true;
  moe.aux_loss_alpha = kBalance;
  if (kind == LeanKind::fine) {
    moe.n_routed_experts = kFineExperts;
    moe.num_experts_per_tok = kFineChosen;
    moe.n_shared_experts = kFineShared;
    moe.moe_intermediate_size = width;
  } else {
    moe.n_routed_experts = kLargeExperts;
    moe.num_experts_per_tok = kLargeChosen;
    moe.moe_intermediate_size = rounded(active3 - kLargeExperts, 3 * kLargeChosen);
  }
  return c;
}

LeanCounts count_lean(const ModelConfig& model, std::int64_t sequence) {
  const ParameterCounts counts = count_parameters(model);
  return {.total = counts.total,
          .active = counts.active - counts.embedding,
          .flops_per_token = train_flops_per_token(model, sequence)};
}

}  // namespace sinew
