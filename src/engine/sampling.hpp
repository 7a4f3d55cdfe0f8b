// The next token out of logits: penalties, truncation and a draw. Names and defaults are those of llama.cpp
// and vLLM where they agree.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "text/tokenizer.hpp"

namespace sinew::engine {

struct Sampling {
  double temperature = 0;  // 0: the likeliest token, whatever the truncations say
  std::int64_t top_k = 0;  // the k likeliest; 0: all
  double top_p = 1;        // the fewest likeliest whose probabilities reach top_p (Holtzman et al. 2020)
  double min_p = 0;        // those of at least min_p times the greatest probability (Nguyen et al. 2024)
  double typical_p = 1;    // the most typical that reach typical_p (Meister et al. 2023)
  // Over the last penalty_window tokens, prompt included; -1: all.
  std::int64_t penalty_window = 64;
  double repetition_penalty =
      1;  // positive logits are divided by it, negative multiplied (Keskar et al. 2019)
  double frequency_penalty = 0, presence_penalty = 0;  // subtracted per occurrence, and once
  // DRY: a token that would lengthen a repetition of `length` >= dry_allowed_length tokens loses
  // dry_multiplier * dry_base^(length - dry_allowed_length). Repetitions do not reach over a breaker.
  double dry_multiplier = 0, dry_base = 1.75;
  std::int64_t dry_allowed_length = 2, dry_window = -1;
  std::vector<TokenId> dry_breakers{};
  // Mirostat (Basu et al. 2021), version 1 or 2 instead of the truncations; 0: off.
  int mirostat = 0;
  double mirostat_tau = 5, mirostat_eta = 0.1;
  std::vector<std::pair<TokenId, float>> logit_bias{};
  std::uint64_t seed = 0;
  bool operator==(const Sampling&) const = default;
};
// Throws UserError for values that make no sense.
void check_sampling(const Sampling& sampling);

// What restricts the tokens that may come next: a grammar, a schema.
class TokenFilter {
 public:
  virtual ~TokenFilter() = default;
  virtual void mask(std::span<float> logits) = 0;  // -infinity for what may not come
  virtual void accept(TokenId id) = 0;
};

struct Candidate {
  TokenId id;
  float logit;
};

// Draws the tokens of one text. The n-th draw is a pure function of sampling, seed, n and what was accepted
// before. Allocates nothing once warm.
class Sampler {
 public:
  explicit Sampler(Sampling sampling, TokenFilter* filter = nullptr);

  void accept(TokenId id);                        // a token of the prompt, or one that was drawn
  TokenId sample(std::span<const float> logits);  // the next draw
  TokenId sample(std::span<const float> logits, double uniform);  // of [0, 1) instead of the seed's
  void truncate(std::size_t length) {
    history_.resize(std::min(length, history_.size()));
  }  // without a filter
  const std::vector<TokenId>& history() const { return history_; }

  // Of the last draw's distribution, before truncation and at temperature 1: log probability of `id`.
  double log_probability(TokenId id) const;

 private:
  void adjust();
  void penalise_repetition();
  void penalise_dry();
  TokenId draw(double uniform);
  const Candidate& sorted(std::size_t i);
  std::size_t keep_typical(std::size_t kept);
  TokenId draw_mirostat(double uniform);
  std::size_t mirostat_kept();

  Sampling sampling_;
  TokenFilter* filter_;
  std::vector<TokenId> history_;
  std::uint64_t draws_ = 0;
  double mu_;
  std::vector<float> logits_;
  std::vector<Candidate> heap_;    // sorted_ taken off
  std::vector<Candidate> sorted_;  // the likeliest so far, falling
  std::vector<double> weights_;
  std::vector<std::int64_t> z_;
  std::vector<std::int32_t> counts_;
};

}  // namespace sinew::engine
