#include "engine/sampling.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/error.hpp"
#include "base/random.hpp"
#include "engine/log_probability.hpp"

namespace sinew::engine {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();

// Likelier first; of equals the lower id.
bool before(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
}
bool after(const Candidate& a, const Candidate& b) { return before(b, a); }

bool is_fraction(double x) { return x >= 0 && x <= 1; }  // false for NaN

std::span<const TokenId> last_of(const std::vector<TokenId>& history, std::int64_t window) {
  const std::size_t count =
      window < 0 ? history.size() : std::min(history.size(), static_cast<std::size_t>(window));
  return std::span(history).last(count);
}

}  // namespace

void check_sampling(const Sampling& s) {
  require(std::isfinite(s.temperature) && s.temperature >= 0, "temperature is {}, not 0 or more",
          s.temperature);
  require(s.top_k >= 0, "top-k is {}, not 0 or more", s.top_k);
  require(is_fraction(s.top_p) && s.top_p > 0, "top-p is {}, not above 0 and at most 1", s.top_p);
  require(is_fraction(s.min_p), "min-p is {}, not between 0 and 1", s.min_p);
  require(is_fraction(s.typical_p) && s.typical_p > 0, "typical-p is {}, not above 0 and at most 1",
          s.typical_p);
  require(std::isfinite(s.repetition_penalty) && s.repetition_penalty > 0,
          "repetition penalty is {}, not above 0", s.repetition_penalty);
  require(std::isfinite(s.frequency_penalty) && std::isfinite(s.presence_penalty),
          "frequency and presence penalty are finite");
  require(s.penalty_window >= -1 && s.dry_window >= -1, "a window of tokens is -1 (all) or more");
  require(std::isfinite(s.dry_multiplier) && s.dry_multiplier >= 0, "DRY multiplier is {}, not 0 or more",
          s.dry_multiplier);
  require(std::isfinite(s.dry_base) && s.dry_base >= 1, "DRY base is {}, not 1 or more", s.dry_base);
  require(s.dry_allowed_length >= 1, "DRY allowed length is {}, not 1 or more", s.dry_allowed_length);
  require(s.mirostat >= 0 && s.mirostat <= 2, "mirostat is {}, not 0, 1 or 2", s.mirostat);
  require(std::isfinite(s.mirostat_tau) && s.mirostat_tau > 0, "mirostat tau is {}, not above 0",
          s.mirostat_tau);
  require(std::isfinite(s.mirostat_eta) && s.mirostat_eta > 0, "mirostat eta is {}, not above 0",
          s.mirostat_eta);
}

Sampler::Sampler(Sampling sampling, TokenFilter* filter)
    : sampling_(std::move(sampling)), filter_(filter), mu_(2 * sampling_.mirostat_tau) {
  check_sampling(sampling_);
}

void Sampler::accept(TokenId id) {
  history_.push_back(id);
  if (filter_ != nullptr) filter_->accept(id);
}

TokenId Sampler::sample(std::span<const float> logits) {
  const Random random(sampling_.seed, "generate");
  return sample(logits, random.uniform(draws_++));
}

TokenId Sampler::sample(std::span<const float> logits, double uniform) {
  ensure(!logits.empty(), "no logits");
  logits_.assign(logits.begin(), logits.end());
  adjust();
  sorted_.clear();
  heap_.clear();
  if (sampling_.temperature == 0) {
    const auto best = std::max_element(logits_.begin(), logits_.end());  // the first of equals
    return static_cast<TokenId>(best - logits_.begin());
  }
  for (std::size_t id = 0; id < logits_.size(); ++id)
    if (logits_[id] > kNever) heap_.push_back({static_cast<TokenId>(id), logits_[id]});
  require(!heap_.empty(),
          "no token may come next: the model's logits are not numbers, or a grammar or a bias forbids all");
  std::make_heap(heap_.begin(), heap_.end(), after);
  return sampling_.mirostat != 0 ? draw_mirostat(uniform) : draw(uniform);
}

double Sampler::log_probability(TokenId id) const { return engine::log_probability(logits_, id); }

// What comes before the draw: bias, penalties, the filter. NaN is never drawn.
void Sampler::adjust() {
  for (float& x : logits_)
    if (std::isnan(x)) x = kNever;
  const auto size = static_cast<TokenId>(logits_.size());
  for (const auto& [id, bias] : sampling_.logit_bias)
    if (id >= 0 && id < size) logits_[static_cast<std::size_t>(id)] += bias;
  penalise_repetition();
  if (sampling_.dry_multiplier > 0) penalise_dry();
  if (filter_ != nullptr) filter_->mask(logits_);
}

void Sampler::penalise_repetition() {
  if (sampling_.repetition_penalty == 1 && sampling_.frequency_penalty == 0 &&
      sampling_.presence_penalty == 0)
    return;
  counts_.assign(logits_.size(), 0);
  const auto recent = last_of(history_, sampling_.penalty_window);
  for (const TokenId id : recent)
    if (static_cast<std::size_t>(id) < counts_.size()) ++counts_[static_cast<std::size_t>(id)];
  for (std::size_t id = 0; id < counts_.size(); ++id) {
    if (counts_[id] == 0) continue;
    double x = logits_[id];
    x = x > 0 ? x / sampling_.repetition_penalty : x * sampling_.repetition_penalty;
    x -= counts_[id] * sampling_.frequency_penalty + sampling_.presence_penalty;
    logits_[id] = static_cast<float>(x);
  }
}

// The Z function of the reversed history gives, for every place before, how long a piece that ends there is
// the same as the end of the text.
void Sampler::penalise_dry() {
  const auto text = last_of(history_, sampling_.dry_window);
  const auto n = static_cast<std::int64_t>(text.size());
  const auto at = [&](std::int64_t i) { return text[static_cast<std::size_t>(n - 1 - i)]; };  // from the end
  std::int64_t limit = 0;
  while (limit < n && std::find(sampling_.dry_breakers.begin(), sampling_.dry_breakers.end(), at(limit)) ==
                          sampling_.dry_breakers.end())
    ++limit;
  if (limit < sampling_.dry_allowed_length) return;
  z_.assign(static_cast<std::size_t>(n), 0);
  counts_.assign(logits_.size(), 0);  // the longest repetition that each token would lengthen
  for (std::int64_t i = 1, left = 0, right = 0; i < n; ++i) {
    std::int64_t& z = z_[static_cast<std::size_t>(i)];
    if (i < right) z = std::min(right - i, z_[static_cast<std::size_t>(i - left)]);
    while (i + z < n && at(z) == at(i + z)) ++z;
    if (i + z > right) left = i, right = i + z;
    const TokenId next = at(i - 1);
    if (static_cast<std::size_t>(next) >= counts_.size()) continue;
    auto& longest = counts_[static_cast<std::size_t>(next)];
    longest = static_cast<std::int32_t>(std::max<std::int64_t>(longest, std::min(z, limit)));
  }
  for (std::size_t id = 0; id < counts_.size(); ++id) {
    if (counts_[id] < sampling_.dry_allowed_length) continue;
    const double over = static_cast<double>(counts_[id] - sampling_.dry_allowed_length);
    const double penalty = sampling_.dry_multiplier * std::pow(sampling_.dry_base, over);
    logits_[id] = static_cast<float>(std::max(logits_[id] - penalty, -3e38));  // the power may be infinite
  }
}

const Candidate& Sampler::sorted(std::size_t i) {
  while (sorted_.size() <= i) {
    std::pop_heap(heap_.begin(), heap_.end(), after);
    sorted_.push_back(heap_.back());
    heap_.pop_back();
  }
  return sorted_[i];
}

// Truncation takes the likeliest off a heap only as far as it needs them; weights are exp((logit - greatest)
// / temperature).
TokenId Sampler::draw(double uniform) {
  const std::size_t all = heap_.size();
  std::size_t most = all;
  if (sampling_.top_k > 0) most = std::min(all, static_cast<std::size_t>(sampling_.top_k));
  const float top = sorted(0).logit;
  const auto weight = [&](float logit) {
    return std::exp((static_cast<double>(logit) - static_cast<double>(top)) / sampling_.temperature);
  };
  weights_.clear();
  double total = 0;
  if (most < all || sampling_.typical_p < 1) {
    for (std::size_t i = 0; i < most; ++i) total += weights_.emplace_back(weight(sorted(i).logit));
    if (sampling_.typical_p < 1) {
      most = keep_typical(most);
      total = std::accumulate(weights_.begin(), weights_.end(), 0.0);
    }
  } else {
    for (const Candidate& c : heap_) total += weight(c.logit);
    total += weights_.emplace_back(1.0);
  }
  std::size_t kept = 0;
  double sum = 0;
  const bool truncated = sampling_.top_p < 1 || sampling_.min_p > 0;
  const double largest =
      most < all || sampling_.typical_p < 1 ? *std::max_element(weights_.begin(), weights_.end()) : 1;
  // Without truncation the draw may stop as soon as it has its token.
  const double goal = truncated ? sampling_.top_p * total : uniform * total;
  while (kept < most && (kept == 0 || sum < goal || (!truncated && sum <= goal))) {
    if (kept == weights_.size()) weights_.push_back(weight(sorted(kept).logit));
    if (kept > 0 && weights_[kept] < sampling_.min_p * largest) break;
    sum += weights_[kept++];
  }
  const double drawn = uniform * (truncated ? sum : total);
  sum = 0;
  for (std::size_t i = 0; i < kept; ++i) {
    sum += weights_[i];
    if (drawn < sum) return sorted_[i].id;
  }
  return sorted_[kept - 1].id;
}

// Of the first `kept` candidates those whose surprise is nearest to the entropy, until their probabilities
// reach typical_p; they stay in falling order.
std::size_t Sampler::keep_typical(std::size_t kept) {
  const double total = std::accumulate(weights_.begin(), weights_.end(), 0.0);
  double entropy = 0;
  for (const double w : weights_)
    if (w > 0) entropy -= w / total * std::log(w / total);
  std::vector<std::size_t> order(kept);
  std::iota(order.begin(), order.end(), 0u);
  const auto distance = [&](std::size_t i) { return std::abs(-std::log(weights_[i] / total) - entropy); };
  std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return distance(a) < distance(b); });
  double sum = 0;
  std::size_t count = 0;
  while (count < kept && (count == 0 || sum < sampling_.typical_p * total)) sum += weights_[order[count++]];
  order.resize(count);
  std::sort(order.begin(), order.end());
  for (std::size_t i = 0; i < count; ++i) {
    sorted_[i] = sorted_[order[i]];
    weights_[i] = weights_[order[i]];
  }
  sorted_.resize(count);
  weights_.resize(count);
  heap_.clear();
  return count;
}

// Version 1: k so that the surprise of a Zipf distribution fitted to the likeliest 100 has mean mu.
std::size_t Sampler::mirostat_kept() {
  const auto n = static_cast<double>(sorted_.size() + heap_.size());
  const std::size_t m = std::min<std::size_t>(100, sorted_.size() + heap_.size());
  double tb = 0, tt = 0;
  for (std::size_t i = 0; i + 1 < m; ++i) {
    const double t = std::log(static_cast<double>(i + 2) / static_cast<double>(i + 1));
    const double b = (static_cast<double>(sorted(i).logit) - sorted(i + 1).logit) / sampling_.temperature;
    tb += t * b;
    tt += t * t;
  }
  if (tt == 0) return 1;
  const double s = tb / tt, epsilon = s - 1;
  const double k = std::pow(epsilon * std::exp2(mu_) / (1 - std::pow(n, -epsilon)), 1 / s);
  return std::isfinite(k) ? static_cast<std::size_t>(std::clamp(std::round(k), 1.0, n))
                          : static_cast<std::size_t>(n);
}

TokenId Sampler::draw_mirostat(double uniform) {
  const std::size_t all = heap_.size();
  const float top = sorted(0).logit;
  const auto weight = [&](float logit) {
    return std::exp((static_cast<double>(logit) - static_cast<double>(top)) / sampling_.temperature);
  };
  double total = 1;
  for (const Candidate& c : heap_) total += weight(c.logit);
  const auto surprise = [&](double w) { return -std::log2(w / total); };
  const std::size_t most = sampling_.mirostat == 1 ? mirostat_kept() : all;
  weights_.clear();
  double sum = 0;
  for (std::size_t i = 0; i < most; ++i) {
    const double w = weight(sorted(i).logit);
    if (i > 0 && sampling_.mirostat == 2 && surprise(w) > mu_) break;
    weights_.push_back(w);
    sum += w;
  }
  const double drawn = uniform * sum;
  std::size_t chosen = 0;
  for (double before_it = weights_[0]; chosen + 1 < weights_.size() && drawn >= before_it;)
    before_it += weights_[++chosen];
  mu_ -= sampling_.mirostat_eta * (surprise(weights_[chosen]) - sampling_.mirostat_tau);
  return sorted_[chosen].id;
}

}  // namespace sinew::engine
