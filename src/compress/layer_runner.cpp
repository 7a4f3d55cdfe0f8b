#include "compress/layer_runner.hpp"

#include <algorithm>
#include <cmath>

#include "base/error.hpp"
#include "base/index.hpp"
#include "config/rope.hpp"
#include "kernels/workspace.hpp"

namespace sinew::compress {
namespace {

constexpr index_t kPassTokens = 2048;  // that go through a layer at once, in whole windows
constexpr index_t kHeadRows = 64;      // rows of logits made at once

}  // namespace

LayerRunner::LayerRunner(const ModelConfig& config, RopeLayout rope_layout, std::vector<TokenId> tokens,
                         index_t window)
    : tokens_(std::move(tokens)), window_(std::min(window, config.max_position_embeddings)) {
  require(!tokens_.empty() && window_ > 1, "the text has no tokens");
  for (const TokenId id : tokens_)
    require(id >= 0 && id < config.vocab_size, "token id {} is outside the model's vocabulary of {}", id,
            config.vocab_size);
  shell_.config = config;
  shell_.rope_layout = rope_layout;
  states_.resize(size(this->tokens() * config.hidden_size));
  const std::vector<double> frequencies = rope_frequencies(config);
  const double factor = rope_attention_factor(config);
  for (index_t t = 0; t < window_; ++t)
    for (const double frequency : frequencies) {
      cos_.push_back(static_cast<float>(std::cos(static_cast<double>(t) * frequency) * factor));
      sin_.push_back(static_cast<float>(std::sin(static_cast<double>(t) * frequency) * factor));
    }
  const index_t at_once = std::max<index_t>(1, kPassTokens / window_);
  pool_ = std::make_shared<engine::KvPool>(config, 1, engine::KvType::f32,
                                           at_once * round_up(window_, engine::kPage));
}

void LayerRunner::embed(const WeightMatrix& embedding) {
  const index_t hidden = shell_.config.hidden_size;
  for (index_t t = 0; t < tokens(); ++t)
    engine::weight_rows(embedding, tokens_[size(t)], 1, states_.data() + t * hidden, hidden);
}

void LayerRunner::run(const Layer& layer, engine::ForwardTap* tap, bool keep) {
  const index_t hidden = shell_.config.hidden_size, half = shell_.config.rope_dim() / 2;
  const index_t at_once = std::max<index_t>(1, kPassTokens / window_) * window_;
  for (index_t first = 0; first < tokens(); first += at_once) {
    const index_t rows = std::min(at_once, tokens() - first);
    std::vector<engine::Sequence> sequences;
    sequences.reserve(size(rows / window_ + 1));
    std::vector<engine::QueryRun> runs;
    Workspace::Frame frame(thread_workspace());
    float* const x = engine::take_rows(frame, rows, hidden);
    float* const cos = frame.take<float>(size(rows * half));
    float* const sin = frame.take<float>(size(rows * half));
    for (index_t at = 0; at < rows; at += window_) {
      const index_t count = std::min(window_, rows - at);
      engine::Sequence& sequence = sequences.emplace_back(pool_);
      sequence.reserve(count);
      runs.push_back({&sequence, at, count, 0});
      std::copy_n(cos_.data(), count * half, cos + at * half);
      std::copy_n(sin_.data(), count * half, sin + at * half);
    }
    std::copy_n(states_.data() + first * hidden, rows * hidden, x);
    const engine::Batch batch{rows, runs, cos, sin, engine::LatentForm::absorbed, tap};
    engine::decoder_layer(shell_, layer, 0, batch, memory_, x);
    if (keep) std::copy_n(x, rows * hidden, states_.data() + first * hidden);
  }
}

void LayerRunner::logits(const std::vector<float>& final_norm, const WeightMatrix& head,
                         engine::ForwardTap* tap,
                         const std::function<void(index_t, index_t, const float*)>& sink) const {
  for (index_t first = 0; first < tokens(); first += kHeadRows) {
    const index_t count = std::min(kHeadRows, tokens() - first);
    logits_of(
        first, count, final_norm, head, [&](const float* logits) { sink(first, count, logits); }, tap);
  }
}

void LayerRunner::logits_of(index_t first, index_t count, const std::vector<float>& final_norm,
                            const WeightMatrix& head, const std::function<void(const float*)>& sink,
                            engine::ForwardTap* tap) const {
  const index_t hidden = shell_.config.hidden_size, vocab = shell_.config.vocab_size;
  Workspace::Frame frame(thread_workspace());
  float* const rows = engine::take_rows(frame, kHeadRows, hidden);
  float* const out = engine::take_rows(frame, kHeadRows, vocab);
  const engine::Batch batch{.tokens = count, .runs = {}, .cos = nullptr, .sin = nullptr, .tap = tap};
  engine::rms_norm(count, hidden, states_.data() + first * hidden, hidden, final_norm,
                   shell_.config.rms_norm_eps, rows);
  engine::apply(batch, {rows, hidden, count, hidden}, engine::Product{&head, out, vocab, nullptr});
  sink(out);
}

}  // namespace sinew::compress
