#include "engine/session.hpp"

#include <algorithm>
#include <cmath>

#include "base/error.hpp"
#include "base/files.hpp"
#include "base/index.hpp"
#include "base/team.hpp"
#include "config/rope.hpp"

namespace sinew::engine {
namespace {

constexpr index_t kHeadRows = 32;  // rows of logits made at once

index_t count_of(const Input& input) { return static_cast<index_t>(input.tokens.size()); }

}  // namespace

Session::Session(std::shared_ptr<const Model> model, const SessionOptions& options)
    : model_(std::move(model)),
      options_(options),
      pool_(std::make_shared<KvPool>(model_->config,
                                     static_cast<index_t>(model_->layers.size() + model_->predictions.size()),
                                     options.kv, options.cache_tokens)),
      frequencies_(rope_frequencies(model_->config)),
      rope_factor_(rope_attention_factor(model_->config)) {
  require(options.batch_tokens > 0, "batches of {} tokens", options.batch_tokens);
  require(model_->config.rope_dim() <= 1024, "heads of {} rotated numbers", model_->config.rope_dim());
  logits_.resize(size(kHeadRows * model_->config.vocab_size));
  last_.resize(size(model_->config.vocab_size));
}

void Session::check(std::span<const Input> inputs) const {
  const ModelConfig& config = model_->config;
  for (const Input& input : inputs) {
    ensure(input.sequence != nullptr && &input.sequence->pool() == pool_.get(),
           "a sequence of another session");
    const index_t end = input.sequence->length() + count_of(input);
    require(end <= config.max_position_embeddings, "{} tokens, but the model's max_position_embeddings is {}",
            end, config.max_position_embeddings);
    for (const Input& other : inputs)
      ensure(&other == &input || other.sequence != input.sequence, "a sequence twice in one batch");
    for (const TokenId id : input.tokens)
      require(id >= 0 && id < config.vocab_size, "token id {} is outside the model's vocabulary of {}", id,
              config.vocab_size);
  }
}

void Session::forward(std::span<const Input> inputs, const LogitsSink& sink) {
  check(inputs);
  for (const Input& input : inputs) input.sequence->reserve(count_of(input));
  done_.assign(inputs.size(), 0);
  for (std::size_t i = 0; i < inputs.size();) {
    runs_.clear();
    input_of_.clear();
    index_t rows = 0;
    for (; i < inputs.size() && rows < options_.batch_tokens; ++i) {
      const index_t left = count_of(inputs[i]) - done_[i];
      if (left == 0) continue;
      const index_t count = std::min(left, options_.batch_tokens - rows);
      runs_.push_back({inputs[i].sequence, rows, count, inputs[i].sequence->length()});
      input_of_.push_back(i);
      rows += count;
      if (count < left) break;  // the rest of it comes first in the next chunk
    }
    if (rows > 0) run_chunk(inputs, sink);
  }
  check_mapped_files();
}

std::span<const float> Session::forward(Sequence& sequence, std::span<const TokenId> tokens) {
  const Input input{&sequence, tokens, Logits::last};
  const auto keep = [this](std::size_t, index_t, std::span<const float> logits) {
    std::copy(logits.begin(), logits.end(), last_.begin());
  };
  forward({&input, 1}, std::ref(keep));
  return last_;
}

void Session::run_chunk(std::span<const Input> inputs, const LogitsSink& sink) {
  const ModelConfig& config = model_->config;
  const index_t rows = runs_.back().first + runs_.back().count;
  Workspace::Frame frame(thread_workspace());
  float* const x = take_rows(frame, rows, config.hidden_size);
  float* const cos = frame.take<float>(size(rows) * frequencies_.size());
  float* const sin = frame.take<float>(size(rows) * frequencies_.size());
  embed(inputs, x);
  positions(runs_, cos, sin);
  const Batch batch{rows, runs_, cos, sin, options_.form};
  for (std::size_t l = 0; l < model_->layers.size(); ++l)
    decoder_layer(*model_, model_->layers[l], static_cast<index_t>(l), batch, memory_, x);
  output(inputs, x, sink);
  copy_hidden(inputs, x);
  for (std::size_t r = 0; r < runs_.size(); ++r) {
    inputs[input_of_[r]].sequence->advance(runs_[r].count);
    done_[input_of_[r]] += runs_[r].count;
  }
}

void Session::embed(std::span<const Input> inputs, float* x) const {
  const index_t hidden = model_->config.hidden_size;
  for (std::size_t r = 0; r < runs_.size(); ++r)
    for (index_t t = 0; t < runs_[r].count; ++t)
      weight_rows(model_->embedding, inputs[input_of_[r]].tokens[size(done_[input_of_[r]] + t)], 1,
                  x + (runs_[r].first + t) * hidden, hidden);
}

void Session::positions(std::span<const QueryRun> runs, float* cos, float* sin) const {
  const auto half = static_cast<index_t>(frequencies_.size());
  for (const QueryRun& run : runs)
    for (index_t t = 0; t < run.count; ++t)
      for (index_t j = 0; j < half; ++j) {
        const double angle = static_cast<double>(run.past + t) * frequencies_[size(j)];
        cos[(run.first + t) * half + j] = static_cast<float>(std::cos(angle) * rope_factor_);
        sin[(run.first + t) * half + j] = static_cast<float>(std::sin(angle) * rope_factor_);
      }
}

void Session::output(std::span<const Input> inputs, const float* x, const LogitsSink& sink) {
  const ModelConfig& config = model_->config;
  const index_t hidden = config.hidden_size, vocab = config.vocab_size;
  Workspace::Frame frame(thread_workspace());
  float* const rows = take_rows(frame, kHeadRows, hidden);
  struct Place {
    std::size_t input;
    index_t token;
  } places[kHeadRows];
  index_t held = 0;
  const auto flush = [&] {
    if (held == 0) return;
    linear({rows, hidden, held, hidden}, Product{&model_->head, logits_.data(), vocab, nullptr});
    for (index_t i = 0; i < held; ++i)
      sink(places[i].input, places[i].token, {logits_.data() + i * vocab, size(vocab)});
    held = 0;
  };
  for (std::size_t r = 0; r < runs_.size(); ++r) {
    const Input& input = inputs[input_of_[r]];
    const index_t before = done_[input_of_[r]];
    for (index_t t = 0; t < runs_[r].count; ++t) {
      const bool wanted =
          input.logits == Logits::all || (input.logits == Logits::last && before + t + 1 == count_of(input));
      if (!wanted) continue;
      rms_norm(1, hidden, x + (runs_[r].first + t) * hidden, hidden, model_->final_norm, config.rms_norm_eps,
               rows + held * hidden);
      places[held++] = {input_of_[r], before + t};
      if (held == kHeadRows) flush();
    }
  }
  flush();
}

void Session::copy_hidden(std::span<const Input> inputs, const float* x) const {
  const index_t hidden = model_->config.hidden_size;
  for (std::size_t r = 0; r < runs_.size(); ++r)
    if (float* const to = inputs[input_of_[r]].hidden)
      rms_norm(runs_[r].count, hidden, x + runs_[r].first * hidden, hidden, model_->final_norm,
               model_->config.rms_norm_eps, to + done_[input_of_[r]] * hidden);
}

std::span<const float> Session::predict(std::size_t depth, Sequence& sequence, index_t first,
                                        std::span<const TokenId> next, const float* hidden, float* out) {
  const ModelConfig& config = model_->config;
  const index_t h = config.hidden_size, n = static_cast<index_t>(next.size());
  ensure(depth < model_->predictions.size() && first + n <= sequence.length() && n > 0,
         "prediction of {} tokens", n);
  const PredictionLayer& layer = model_->predictions[depth];
  for (index_t at = 0; at < n; at += options_.batch_tokens) {
    const index_t count = std::min(options_.batch_tokens, n - at);
    Workspace::Frame frame(thread_workspace());
    float* const joined = take_rows(frame, count, 2 * h);
    float* const x = take_rows(frame, count, h);
    float* const row = frame.take<float>(size(h));
    for (index_t t = 0; t < count; ++t) {
      weight_rows(model_->embedding, next[size(at + t)], 1, row, h);
      rms_norm(1, h, row, h, layer.embedding_norm, config.rms_norm_eps, joined + t * 2 * h);
      rms_norm(1, h, hidden + (at + t) * h, h, layer.hidden_norm, config.rms_norm_eps,
               joined + t * 2 * h + h);
    }
    linear({joined, 2 * h, count, 2 * h}, Product{&layer.projection, x, h, nullptr});
    const QueryRun run{&sequence, 0, count, first + at};
    float* const cos = frame.take<float>(size(count) * frequencies_.size());
    float* const sin = frame.take<float>(size(count) * frequencies_.size());
    positions({&run, 1}, cos, sin);
    decoder_layer(*model_, layer.layer, static_cast<index_t>(model_->layers.size() + depth),
                  {count, {&run, 1}, cos, sin, options_.form}, memory_, x);
    std::copy_n(x, count * h, out + at * h);
    if (at + count < n) continue;
    float* const last = take_rows(frame, 1, h);
    rms_norm(1, h, x + (count - 1) * h, h, layer.head_norm, config.rms_norm_eps, last);
    linear({last, h, 1, h}, Product{&model_->head, logits_.data(), config.vocab_size, nullptr});
  }
  return {logits_.data(), size(config.vocab_size)};
}

}  // namespace sinew::engine
