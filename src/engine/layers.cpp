#include "engine/layers.hpp"

#include <algorithm>

#include "base/index.hpp"
#include "kernels/norm.hpp"
#include "kernels/vector.hpp"

namespace sinew::engine {
namespace {

GateRule gate_rule(const ModelConfig& config) {
  const MoeConfig& moe = config.moe;
  const bool grouped = moe.topk_method != TopkMethod::greedy;
  return {.softmax = moe.scoring_func == ScoringFunc::softmax,
          .experts = moe.n_routed_experts,
          .top_k = moe.num_experts_per_tok,
          .groups = grouped ? moe.n_group : 1,
          .kept_groups = grouped ? moe.topk_group : 1,
          .group_by_two = moe.topk_method == TopkMethod::noaux_tc,
          .renormalize = moe.norm_topk_prob,
          .scale = moe.routed_scaling_factor};
}

// The routed experts' part of the work list.
void add_experts(const MixtureOfExperts& moe, LayerMemory& memory) {
  for (index_t e = 0; e < memory.rows.experts(); ++e) {
    const std::int32_t first = memory.rows.offsets[size(e)], last = memory.rows.offsets[size(e) + 1];
    if (first == last) continue;
    memory.work.push_back({.weights = &moe.experts[size(e)],
                           .tokens = memory.rows.token_of.data() + first,
                           .factor = memory.factors.data() + first,
                           .count = last - first});
  }
}

void mixture(const Model& model, const MixtureOfExperts& moe, index_t index, const Batch& batch,
             const Activations& x, LayerMemory& memory) {
  const GateRule rule = gate_rule(model.config);
  Workspace::Frame frame(thread_workspace());
  float* const logits = take_rows(frame, x.tokens, rule.experts);
  float* const scores = frame.take<float>(size(x.tokens * rule.experts));
  auto* const chosen = frame.take<std::int64_t>(size(x.tokens * rule.top_k));
  float* const weight = frame.take<float>(size(x.tokens * rule.top_k));
  apply(batch, x, Product{&moe.router, logits, rule.experts, nullptr});
  gate_forward(active_isa(), rule, x.tokens, logits,
               moe.correction_bias.empty() ? nullptr : moe.correction_bias.data(), scores, chosen, weight);
  if (batch.tap != nullptr) batch.tap->routing(index, x.tokens, logits, chosen, weight);
  sort_by_expert(chosen, x.tokens, rule.top_k, rule.experts, memory.rows);
  memory.factors.resize(memory.rows.slots.size());
  for (std::size_t r = 0; r < memory.factors.size(); ++r) memory.factors[r] = weight[memory.rows.slots[r]];
  add_experts(moe, memory);
  if (moe.shared) memory.work.push_back({.weights = &*moe.shared, .count = x.tokens});
}

}  // namespace

void apply(const Batch& batch, const Activations& x, std::span<const Product> products) {
  if (batch.tap != nullptr)
    for (const Product& product : products) batch.tap->product(*product.w, x);
  linear(x, products);
}

void rms_norm(index_t rows, index_t n, const float* x, index_t ld_x, const std::vector<float>& weight,
              double eps, float* y) {
  Workspace::Frame frame(thread_workspace());
  rms_norm_forward<float>(active_isa(), rows, n, x, ld_x, nullptr, weight.data(), eps, nullptr, y,
                          frame.take<float>(size(rows)));
}

namespace {

// The router of the next layer, run on what this layer's feed-forward is about to be added to: most of what
// it chooses is chosen again once that has been added (Eliseev and Mazur 2023).
void foresee(const Model& model, index_t index, const Batch& batch, const float* x, LayerMemory& memory) {
  constexpr index_t kFew = 4;  // more tokens ask for most experts anyway
  const auto next = size(index + 1);
  if (batch.tokens > kFew || next >= model.layers.size() || !model.layers[next].moe) return;
  const MixtureOfExperts& moe = *model.layers[next].moe;
  const GateRule rule = gate_rule(model.config);
  const index_t hidden = model.config.hidden_size;
  Workspace::Frame frame(thread_workspace());
  float* const normed = take_rows(frame, batch.tokens, hidden);
  float* const logits = take_rows(frame, batch.tokens, rule.experts);
  float* const scores = frame.take<float>(size(batch.tokens * rule.experts));
  auto* const chosen = frame.take<std::int64_t>(size(batch.tokens * rule.top_k));
  float* const weight = frame.take<float>(size(batch.tokens * rule.top_k));
  rms_norm(batch.tokens, hidden, x, hidden, model.layers[next].ffn_norm, model.config.rms_norm_eps, normed);
  linear({normed, hidden, batch.tokens, hidden}, Product{&moe.router, logits, rule.experts, nullptr});
  gate_forward(active_isa(), rule, batch.tokens, logits,
               moe.correction_bias.empty() ? nullptr : moe.correction_bias.data(), scores, chosen, weight);
  memory.wanted.assign(chosen, chosen + batch.tokens * rule.top_k);
  model.store->prefetch(index + 1, memory.wanted);
}

// Experts from disk, as many at a time as memory holds.
void stored_networks(const Model& model, const MixtureOfExperts& moe, index_t index, const Batch& batch,
                     const Activations& rows, LayerMemory& memory, float* y) {
  ExpertStore& store = *model.store;
  const auto routed = memory.work.size() - (moe.shared ? 1 : 0);
  const std::size_t wave = std::max<std::size_t>(1, size(store.capacity()) / 2);
  for (std::size_t begin = 0; begin < routed || begin == 0;) {
    const std::size_t end = std::min(routed, routed <= size(store.capacity()) ? routed : begin + wave);
    memory.wanted.clear();
    for (std::size_t i = begin; i < end; ++i)
      memory.wanted.push_back(static_cast<std::int32_t>(memory.work[i].weights - moe.experts.data()));
    store.request(index, memory.wanted);
    if (begin == 0) foresee(model, index, batch, y, memory);
    store.hold();
    for (std::size_t i = begin; i < end; ++i)
      memory.work[i].weights =
          store.weights(index, static_cast<std::int32_t>(memory.work[i].weights - moe.experts.data()));
    const std::size_t last = end == routed ? memory.work.size() : end;  // the shared one goes with the last
    swiglu_networks(rows, std::span(memory.work).subspan(begin, last - begin), y, rows.cols);
    store.release();
    if (end == begin) break;
    begin = end;
  }
}

}  // namespace

void feed_forward_layer(const Model& model, const Layer& layer, index_t index, const Batch& batch,
                        const float* x, LayerMemory& memory, float* y) {
  const index_t hidden = model.config.hidden_size;
  const Activations rows{x, hidden, batch.tokens, hidden};
  memory.work.clear();
  if (layer.dense)
    memory.work.push_back({.weights = &*layer.dense, .count = batch.tokens});
  else
    mixture(model, *layer.moe, index, batch, rows, memory);
  if (batch.tap != nullptr)
    for (const ExpertWork& work : memory.work) batch.tap->network(work, rows);
  const bool on_disk =
      model.store != nullptr && layer.moe && index < static_cast<index_t>(model.layers.size());
  if (on_disk) return stored_networks(model, *layer.moe, index, batch, rows, memory, y);
  swiglu_networks(rows, memory.work, y, hidden);
}

void decoder_layer(const Model& model, const Layer& layer, index_t index, const Batch& batch,
                   LayerMemory& memory, float* x) {
  const index_t hidden = model.config.hidden_size;
  Workspace::Frame frame(thread_workspace());
  float* const normed = take_rows(frame, batch.tokens, hidden);
  float* const attended = take_rows(frame, batch.tokens, hidden);
  rms_norm(batch.tokens, hidden, x, hidden, layer.attention_norm, model.config.rms_norm_eps, normed);
  attention_layer(model, layer, index, batch, normed, memory, attended);
  rms_norm_forward<float>(active_isa(), batch.tokens, hidden, x, hidden, attended, layer.ffn_norm.data(),
                          model.config.rms_norm_eps, x, normed, frame.take<float>(size(batch.tokens)));
  feed_forward_layer(model, layer, index, batch, normed, memory, x);
}

}  // namespace sinew::engine
