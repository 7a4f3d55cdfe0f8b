#include "config/traffic_formulas.hpp"

namespace sinew {
namespace {

// Elements of a row on its way to an expert, and of what comes back, as bytes.
struct RowBytes {
  std::int64_t narrow, wide;
};
RowBytes row_bytes(const ModelConfig& c, const Layout& l, std::int64_t width) {
  const std::int64_t h = c.hidden_size;
  if (l.dispatch == "fp8") return {h + 4 * ((h + 127) / 128), 2 * h};
  return {h * width, h * width};
}

std::int64_t tokens_of_context(const Layout& l, const MicroBatch& b) { return b.rows * b.tokens / l.context; }

}  // namespace

TensorMoves tensor_moves(const ModelConfig& c, const StagePart& part, const Layout& l, const MicroBatch& b) {
  TensorMoves m;
  if (l.tensor == 1) return m;
  const std::int64_t own = tokens_of_context(l, b) / l.tensor, h = c.hidden_size;
  const std::int64_t attention =
      c.attention == Attention::mla ? c.q_lora_rank.value_or(h) + c.kv_lora_rank + c.qk_rope_head_dim : h;
  const auto layer = [&](std::int64_t index) {
    const bool dense = c.ffn_kind(index) == FfnKind::dense;
    m.layers.gathered += own * (attention + (dense ? h : 0));
    m.layers.scattered += own * (h + (dense ? h : 0));
  };
  for (std::int64_t i = part.first; i < part.end; ++i) layer(i);
  if (part.embedding) m.ends.scattered += own * h;
  if (!part.head) return m;
  m.ends.gathered += own * h;
  for (std::int64_t d = 0; d < c.num_nextn_predict_layers; ++d) {
    layer(c.num_hidden_layers + d);
    m.ends.gathered += own * h;
    m.ends.scattered += own * h;
  }
  return m;
}

std::int64_t cross_entropy_bytes(const ModelConfig& c, const Layout& l, const MicroBatch& b,
                                 std::int64_t rank) {
  if (l.tensor == 1) return 0;
  const std::int64_t rows =
      part_begin(c.vocab_size, l.tensor, rank + 1) - part_begin(c.vocab_size, l.tensor, rank);
  const std::int64_t tokens = tokens_of_context(l, b), chunk = cross_entropy_chunk(rows);
  std::int64_t bytes = 0;
  for (std::int64_t begin = 0; begin < tokens; begin += chunk) {
    const std::int64_t count = std::min(chunk, tokens - begin);
    bytes += all_reduce_bytes(count, l.tensor, rank, 4) + all_reduce_bytes(2 * count, l.tensor, rank, 4);
  }
  return (1 + c.num_nextn_predict_layers) * bytes;
}

RingBytes ring_bytes(const ModelConfig& c, const Layout& l, const MicroBatch& b) {
  if (l.context == 1) return {};
  const std::int64_t heads =
      (c.attention == Attention::mla ? c.num_attention_heads : c.num_key_value_heads) / l.tensor;
  const std::int64_t elements = tokens_of_context(l, b) * heads * (c.qk_head_dim() + c.value_head_dim());
  const std::int64_t turns = (l.context - 1) * elements * b.width;
  return {turns, turns + l.context * elements * 4};
}

std::int64_t stage_flow_bytes(const ModelConfig& c, const Layout& l, const MicroBatch& b, bool joint) {
  return tokens_of_context(l, b) / l.tensor * c.hidden_size * b.width +
         (joint ? 4 * (2 * c.moe.n_routed_experts + 1) : 0);
}

std::int64_t moe_layers(const ModelConfig& c, const StagePart& part) {
  std::int64_t n = 0;
  for (std::int64_t i = part.first; i < part.end; ++i) n += c.ffn_kind(i) == FfnKind::moe ? 1 : 0;
  for (std::int64_t d = 0; part.head && d < c.num_nextn_predict_layers; ++d)
    n += c.ffn_kind(c.num_hidden_layers + d) == FfnKind::moe ? 1 : 0;
  return n;
}

ExpertBytes expert_bytes(const ModelConfig& c, const Layout& l, std::int64_t members, std::int64_t experts,
                         const ExchangedRows& r, std::int64_t width) {
  if (members == 1) return {};
  const auto [narrow, wide] = row_bytes(c, l, width);
  const std::int64_t counts = r.calls * (members - 1) * 8 * (experts / members);
  // Each row takes the weight of its assignment along, whose gradient comes back.
  return {counts + r.out * (narrow + 4) + r.in * wide, r.in * (wide + 4) + r.out * narrow};
}

ExpertBytes node_bytes(const ModelConfig& c, const Layout& l, std::int64_t nodes, const ExchangedRows& r,
                       std::int64_t width) {
  if (nodes == 1) return {};
  const auto [narrow, wide] = row_bytes(c, l, width);
  const std::int64_t k = c.moe.num_experts_per_tok;
  // Each row takes its K experts' numbers and weights along.
  return {r.calls * (nodes - 1) * 8 + r.out * (narrow + 8 * k) + r.in * wide,
          r.in * (wide + 4 * k) + r.out * narrow};
}

}  // namespace sinew
