#include "compress/compare.hpp"

#include <algorithm>
#include <cmath>

#include "base/error.hpp"
#include "base/index.hpp"
#include "base/team.hpp"

namespace sinew::compress {
namespace {

struct RowScore {
  double kl = 0, base_loss = 0, loss = 0;
  bool same = false;
};

double log_sum(const float* logits, index_t n, index_t* top) {
  const float* const most = std::max_element(logits, logits + n);
  *top = most - logits;
  double sum = 0;
  for (index_t i = 0; i < n; ++i) sum += std::exp(static_cast<double>(logits[i] - *most));
  return static_cast<double>(*most) + std::log(sum);
}

RowScore score_row(const float* base, const float* other, index_t n, TokenId next) {
  index_t base_top = 0, top = 0;
  const double base_sum = log_sum(base, n, &base_top), sum = log_sum(other, n, &top);
  RowScore out;
  for (index_t i = 0; i < n; ++i) {
    const double log_p = base[i] - base_sum;
    out.kl += std::exp(log_p) * (log_p - (other[i] - sum));
  }
  out.kl = std::max(0.0, out.kl);
  out.same = base_top == top;
  if (next >= 0) {
    out.base_loss = base_sum - base[next];
    out.loss = sum - other[next];
  }
  return out;
}

double relative(const std::vector<float>& x, const std::vector<float>& base) {
  double error = 0, all = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double difference = static_cast<double>(x[i]) - base[i];
    error += difference * difference;
    all += static_cast<double>(base[i]) * base[i];
  }
  return all > 0 ? std::sqrt(error / all) : 0;
}

}  // namespace

void ComparisonSums::add(index_t first, index_t count, const float* base, const float* other) {
  std::vector<RowScore> scores(size(count));
  const auto next_of = [this](index_t t) {
    const bool has = t + 1 < static_cast<index_t>(text_.size()) && (t + 1) % window_ != 0;
    return has ? text_[size(t + 1)] : -1;
  };
  parallel_tasks(count, [&](index_t i) {
    scores[size(i)] = score_row(base + i * vocab_, other + i * vocab_, vocab_, next_of(first + i));
  });
  for (index_t i = 0; i < count; ++i) {
    const RowScore& score = scores[size(i)];
    kl_.push_back(score.kl);
    same_ += score.same ? 1 : 0;
    base_loss_ += score.base_loss;
    loss_ += score.loss;
    predicted_ += next_of(first + i) >= 0 ? 1 : 0;
  }
}

Comparison ComparisonSums::result() const {
  Comparison out;
  out.tokens = static_cast<index_t>(kl_.size());
  if (kl_.empty()) return out;
  for (const double kl : kl_) out.kl += kl / static_cast<double>(kl_.size());
  std::vector<double> sorted = kl_;
  std::sort(sorted.begin(), sorted.end());
  out.kl_worst = sorted[std::min(sorted.size() - 1, sorted.size() * 99 / 100)];
  out.same_top = same_ / static_cast<double>(kl_.size());
  const auto predicted = static_cast<double>(std::max<index_t>(1, predicted_));
  out.base_perplexity = std::exp(base_loss_ / predicted);
  out.perplexity = std::exp(loss_ / predicted);
  return out;
}

Comparison compare_models(const Model& base, const Model& other, const std::vector<TokenId>& tokens,
                          index_t window) {
  require(base.config.vocab_size == other.config.vocab_size && base.layers.size() == other.layers.size(),
          "two models of different vocabularies or numbers of layers cannot be compared");
  LayerRunner from(base.config, base.rope_layout, tokens, window),
      to(other.config, other.rope_layout, tokens, window);
  from.embed(base.embedding);
  to.embed(other.embedding);
  std::vector<double> errors;
  for (std::size_t l = 0; l < base.layers.size(); ++l) {
    from.run(base.layers[l], nullptr, true);
    to.run(other.layers[l], nullptr, true);
    errors.push_back(relative(to.states(), from.states()));
  }
  const index_t vocab = base.config.vocab_size;
  ComparisonSums sums(from.text(), from.window(), vocab);
  // In pieces, so that logits of no more than a few megabytes are held.
  from.logits(base.final_norm, base.head, nullptr, [&](index_t first, index_t count, const float* logits) {
    to.logits_of(first, count, other.final_norm, other.head,
                 [&](const float* others) { sums.add(first, count, logits, others); });
  });
  Comparison out = sums.result();
  out.layer_errors = std::move(errors);
  return out;
}

}  // namespace sinew::compress
