// The attention of one layer: projections, rotation, cache and core, in GQA and in both forms of MLA.
#include <algorithm>

#include "base/index.hpp"
#include "base/team.hpp"
#include "engine/layers.hpp"
#include "kernels/vector.hpp"

namespace sinew::engine {
namespace {

constexpr index_t kExpandedBytes = index_t{32} << 20;  // of keys and values out of the latent space at a time

const float* bias(const std::vector<float>& values) { return values.empty() ? nullptr : values.data(); }

// Rotates the last `rotated` elements of each of `heads` heads of `width` elements, for every row.
void rotate(const Model& model, const Batch& batch, index_t heads, index_t width, index_t rotated, float* x,
            index_t ld) {
  const auto& vector = vector_kernels<float>(active_isa());
  const bool interleaved = model.rope_layout == RopeLayout::interleaved;
  const auto turn = [&](index_t t) {
    float out[1024];
    for (index_t h = 0; h < heads; ++h) {
      float* const at = x + t * ld + h * width + width - rotated;
      vector.rotate(at, rotated / 2, batch.cos + t * rotated / 2, batch.sin + t * rotated / 2, 1.0F,
                    interleaved, out);
      std::copy_n(out, rotated, at);
    }
  };
  if (batch.tokens < 16)
    for (index_t t = 0; t < batch.tokens; ++t) turn(t);
  else
    parallel_tasks(batch.tokens, turn);
}

// body(run, row of the batch, position, page) for every token.
template <class Body>
void each_token(const Batch& batch, const Body& body) {
  for (const QueryRun& run : batch.runs)
    for (index_t t = 0; t < run.count; ++t) {
      const index_t position = run.past + t;
      body(run.sequence->pool(), run.first + t, position % kPage,
           run.sequence->page_table()[position / kPage]);
    }
}

void normalise_heads(const Batch& batch, index_t heads, index_t width, const std::vector<float>& weight,
                     double eps, float* x) {
  if (!weight.empty()) rms_norm(batch.tokens * heads, width, x, width, weight, eps, x);
}

void grouped(const Model& model, const Layer& layer, index_t index, const Batch& batch, const Activations& x,
             float* out) {
  const ModelConfig& config = model.config;
  const GroupedAttention& a = *layer.grouped;
  const index_t heads = config.num_attention_heads, kv_heads = config.num_key_value_heads,
                d = config.head_dim;
  Workspace::Frame frame(thread_workspace());
  float* const q = take_rows(frame, x.tokens, heads * d);
  float* const k = take_rows(frame, x.tokens, kv_heads * d);
  float* const v = take_rows(frame, x.tokens, kv_heads * d);
  const Product products[] = {{&a.q, q, heads * d, bias(a.q_bias)},
                              {&a.k, k, kv_heads * d, bias(a.k_bias)},
                              {&a.v, v, kv_heads * d, bias(a.v_bias)}};
  apply(batch, x, products);
  normalise_heads(batch, heads, d, a.q_norm, config.rms_norm_eps, q);
  normalise_heads(batch, kv_heads, d, a.k_norm, config.rms_norm_eps, k);
  rotate(model, batch, heads, d, d, q, heads * d);
  rotate(model, batch, kv_heads, d, d, k, kv_heads * d);
  each_token(batch, [&](const KvPool& pool, index_t row, index_t at, std::int32_t page) {
    for (index_t h = 0; h < kv_heads; ++h) {
      write_row(pool.type(), pool.keys(page, index, h), at, k + (row * kv_heads + h) * d, d);
      write_row(pool.type(), pool.values(page, index, h), at, v + (row * kv_heads + h) * d, d);
    }
  });
  float* const mixed = take_rows(frame, x.tokens, heads * d);
  attend_cached({index, heads, kv_heads, d, d, config.softmax_scale()}, batch.runs, q, mixed);
  apply(batch, {mixed, heads * d, x.tokens, heads * d},
        Product{&layer.o, out, config.hidden_size, bias(layer.o_bias)});
}

// Which form takes fewer operations for `count` queries that see `past` keys before them.
bool absorb(const ModelConfig& c, const QueryRun& run, LatentForm form) {
  if (form != LatentForm::automatic) return form == LatentForm::absorbed;
  const auto n = static_cast<double>(run.count), all = static_cast<double>(run.past + run.count);
  const auto lora = static_cast<double>(c.kv_lora_rank), rope = static_cast<double>(c.qk_rope_head_dim);
  const auto head = static_cast<double>(c.qk_nope_head_dim + c.v_head_dim);
  const double seen = n * (all - n / 2);
  return n * head * lora + seen * (2 * lora + rope) < all * head * lora + seen * (head + rope);
}

struct LatentSizes {
  index_t heads, nope, rope, v, lora;
  explicit LatentSizes(const ModelConfig& c)
      : heads(c.num_attention_heads),
        nope(c.qk_nope_head_dim),
        rope(c.qk_rope_head_dim),
        v(c.v_head_dim),
        lora(c.kv_lora_rank) {}
  index_t key() const { return nope + rope; }
  index_t latent() const { return lora + rope; }
};

void apply_each(std::span<const HeadProduct> products, ForwardTap* tap) {
  if (tap != nullptr)
    for (const HeadProduct& head : products) tap->product(*head.product.w, head.x);
  linear_each(products);
}

// q [tokens, heads, nope + rope] -> mixed [tokens, heads, v], through queries in the latent space.
void absorbed(const Model& model, const LatentAttention& a, index_t index, std::span<const QueryRun> runs,
              const float* q, index_t tokens, ForwardTap* tap, LayerMemory& memory, float* mixed) {
  const LatentSizes s(model.config);
  Workspace::Frame frame(thread_workspace());
  float* const latent_q = take_rows(frame, tokens, s.heads * s.latent());
  float* const latent_mixed = take_rows(frame, tokens, s.heads * s.lora);
  memory.heads.clear();
  for (const QueryRun& run : runs)
    for (index_t h = 0; h < s.heads; ++h)
      memory.heads.push_back({{q + (run.first * s.heads + h) * s.key(), s.heads * s.key(), run.count, s.nope},
                              {&a.key_absorb[size(h)], latent_q + (run.first * s.heads + h) * s.latent(),
                               s.heads * s.latent(), nullptr}});
  apply_each(memory.heads, tap);
  for (const QueryRun& run : runs)
    for (index_t r = run.first * s.heads; r < (run.first + run.count) * s.heads; ++r)
      std::copy_n(q + r * s.key() + s.nope, s.rope, latent_q + r * s.latent() + s.lora);
  attend_cached({index, s.heads, 1, s.latent(), s.lora, model.config.softmax_scale()}, runs, latent_q,
                latent_mixed);
  memory.heads.clear();
  for (const QueryRun& run : runs)
    for (index_t h = 0; h < s.heads; ++h)
      memory.heads.push_back(
          {{latent_mixed + (run.first * s.heads + h) * s.lora, s.heads * s.lora, run.count, s.lora},
           {&a.value_up[size(h)], mixed + (run.first * s.heads + h) * s.v, s.heads * s.v, nullptr}});
  apply_each(memory.heads, tap);
}

// The same through keys and values of each head.
void expanded(const Model& model, const LatentAttention& a, index_t index, const QueryRun& run,
              const float* q, LayerMemory& memory, float* mixed) {
  const LatentSizes s(model.config);
  const index_t all = run.past + run.count, width = s.nope + s.v;
  const index_t most = std::clamp<index_t>(kExpandedBytes / (4 * all * width), 1, s.heads);
  Workspace::Frame frame(thread_workspace());
  float* const latents = take_rows(frame, all, s.latent());
  float* const keys = take_rows(frame, all, most * width);
  read_keys(*run.sequence, index, 0, 0, all, latents);
  for (index_t first = 0; first < s.heads; first += most) {
    const index_t heads = std::min(most, s.heads - first);
    memory.products.clear();
    for (index_t h = 0; h < heads; ++h) {
      memory.products.push_back({&a.key_up[size(first + h)], keys + h * width, heads * width, nullptr});
      memory.products.push_back(
          {&a.value_up[size(first + h)], keys + h * width + s.nope, heads * width, nullptr});
    }
    linear({latents, s.latent(), all, s.lora}, memory.products);
    attend_expanded({index, s.heads, s.heads, s.key(), s.v, model.config.softmax_scale()}, run, q,
                    {first, heads, keys, latents, s.latent(), s.rope}, mixed);
  }
}

void latent(const Model& model, const Layer& layer, index_t index, const Batch& batch, const Activations& x,
            LayerMemory& memory, float* out) {
  const ModelConfig& config = model.config;
  const LatentAttention& a = *layer.latent;
  const LatentSizes s(config);
  Workspace::Frame frame(thread_workspace());
  float* const q = take_rows(frame, x.tokens, s.heads * s.key());
  float* const compressed = take_rows(frame, x.tokens, s.latent());
  const Product kv{&a.kv_a, compressed, s.latent(), nullptr};
  if (a.q_a.present()) {
    const index_t rank = a.q_a.rows;
    float* const low = take_rows(frame, x.tokens, rank);
    const Product products[] = {{&a.q_a, low, rank, nullptr}, kv};
    apply(batch, x, products);
    rms_norm(x.tokens, rank, low, rank, a.q_a_norm, config.inner_norm_eps, low);
    apply(batch, {low, rank, x.tokens, rank}, Product{&a.q, q, s.heads * s.key(), nullptr});
  } else {
    const Product products[] = {{&a.q, q, s.heads * s.key(), nullptr}, kv};
    apply(batch, x, products);
  }
  rotate(model, batch, s.heads, s.key(), s.rope, q, s.heads * s.key());
  rotate(model, batch, 1, s.latent(), s.rope, compressed, s.latent());
  float* const normed = frame.take<float>(size(x.tokens * s.lora));
  rms_norm(x.tokens, s.lora, compressed, s.latent(), a.kv_a_norm, config.inner_norm_eps, normed);
  each_token(batch, [&](const KvPool& pool, index_t row, index_t at, std::int32_t page) {
    float* const whole = compressed + row * s.latent();
    std::copy_n(normed + row * s.lora, s.lora, whole);
    write_row(pool.type(), pool.keys(page, index, 0), at, whole, s.latent());
  });
  float* const mixed = take_rows(frame, x.tokens, s.heads * s.v);
  const auto is_absorbed = [&](const QueryRun& run) { return absorb(config, run, batch.form); };
  // Neighbours in absorbed form make one call.
  for (std::size_t i = 0; i < batch.runs.size();) {
    std::size_t end = i;
    while (end < batch.runs.size() && is_absorbed(batch.runs[end])) ++end;
    if (end > i)
      absorbed(model, a, index, batch.runs.subspan(i, end - i), q, x.tokens, batch.tap, memory, mixed);
    if (end < batch.runs.size()) expanded(model, a, index, batch.runs[end++], q, memory, mixed);
    i = end;
  }
  apply(batch, {mixed, s.heads * s.v, x.tokens, s.heads * s.v},
        Product{&layer.o, out, config.hidden_size, nullptr});
}

}  // namespace

void attention_layer(const Model& model, const Layer& layer, index_t index, const Batch& batch,
                     const float* x, LayerMemory& memory, float* out) {
  const index_t hidden = model.config.hidden_size;
  const Activations rows{x, hidden, batch.tokens, hidden};
  if (layer.latent)
    latent(model, layer, index, batch, rows, memory, out);
  else
    grouped(model, layer, index, batch, rows, out);
}

}  // namespace sinew::engine
