// Sampling against a plain reference that sorts everything, and each setting's promise.
#include "engine/sampling.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "base/error.hpp"
#include "base/random.hpp"
#include "support/property.hpp"

namespace sinew::engine {
namespace {

std::vector<float> random_logits(std::uint64_t seed, std::size_t n, float spread) {
  std::vector<float> x(n);
  Random(seed, "logits").fill_normal(x.data(), 0, n, 0, spread);
  return x;
}

// The kept tokens and their probabilities, in falling order: every truncation written out on a full sort.
std::vector<std::pair<TokenId, double>> reference(const std::vector<float>& logits, const Sampling& s) {
  std::vector<std::pair<TokenId, double>> list;
  const float top = *std::max_element(logits.begin(), logits.end());
  for (std::size_t i = 0; i < logits.size(); ++i)
    list.emplace_back(static_cast<TokenId>(i),
                      std::exp((static_cast<double>(logits[i]) - top) / s.temperature));
  std::stable_sort(list.begin(), list.end(), [&](const auto& a, const auto& b) {
    return logits[static_cast<std::size_t>(a.first)] > logits[static_cast<std::size_t>(b.first)];
  });
  const auto normalise = [&] {
    double total = 0;
    for (const auto& [id, p] : list) total += p;
    for (auto& [id, p] : list) p /= total;
  };
  if (s.top_k > 0 && list.size() > static_cast<std::size_t>(s.top_k))
    list.resize(static_cast<std::size_t>(s.top_k));
  normalise();
  if (s.typical_p < 1) {
    double entropy = 0;
    for (const auto& [id, p] : list) entropy -= p > 0 ? p * std::log(p) : 0;
    auto typical = list;
    std::stable_sort(typical.begin(), typical.end(), [&](const auto& a, const auto& b) {
      return std::abs(-std::log(a.second) - entropy) < std::abs(-std::log(b.second) - entropy);
    });
    double sum = 0;
    std::size_t n = 0;
    while (n < typical.size() && (n == 0 || sum < s.typical_p)) sum += typical[n++].second;
    typical.resize(n);
    std::erase_if(list, [&](const auto& c) {
      return std::none_of(typical.begin(), typical.end(), [&](const auto& t) { return t.first == c.first; });
    });
    normalise();
  }
  const double largest = list[0].second;
  double sum = 0;
  std::size_t n = 0;
  while (n < list.size() && (n == 0 || sum < s.top_p)) {
    if (n > 0 && list[n].second < s.min_p * largest) break;
    sum += list[n++].second;
  }
  list.resize(n);
  normalise();
  return list;
}

PROPERTY(Sampling, DrawsWhatAFullSortDraws) {
  const auto logits =
      random_logits(test::draw_bits(), test::draw<std::size_t>(1, 60), static_cast<float>(test::draw(1, 5)));
  Sampling s;
  s.temperature = test::draw_of({0.3, 1.0, 2.5});
  s.top_k = test::draw_of({0, 0, 1, 5, 40});
  s.top_p = test::draw_of({1.0, 1.0, 0.9037, 0.5171});
  s.min_p = test::draw_of({0.0, 0.0, 0.0507, 0.5021});
  s.typical_p = test::draw_of({1.0, 1.0, 0.8053, 0.3019});
  const auto want = reference(logits, s);
  Sampler sampler(s);
  // In the middle of every token's share the draw is that token.
  double below = 0;
  for (const auto& [id, p] : want) {
    if (p > 1e-9) HOLDS(sampler.sample(logits, below + p / 2) == id);
    below += p;
  }
}

TEST(Sampling, ZeroTemperatureTakesTheFirstOfTheLikeliest) {
  Sampler sampler({});
  EXPECT_EQ(sampler.sample(std::vector<float>{1, 3, 2, 3}), 1);
  EXPECT_EQ(sampler.sample(std::vector<float>{NAN, -5, NAN}), 1);
}

TEST(Sampling, OneSeedOneText) {
  const auto logits = random_logits(1, 50, 1);
  const auto text = [&](std::uint64_t seed) {
    Sampler sampler({.temperature = 1, .seed = seed});
    std::vector<TokenId> ids;
    for (int i = 0; i < 20; ++i) ids.push_back(sampler.sample(logits));
    return ids;
  };
  EXPECT_EQ(text(7), text(7));
  EXPECT_NE(text(7), text(8));
}

TEST(Sampling, PenaltiesByTheirFormulas) {
  const std::vector<float> logits{2, -2, 1, 0};
  const auto ratio = [&](Sampling s,
                         TokenId id) {  // how much the logit of `id` fell, told by log probabilities
    s.temperature = 1;
    Sampler plain({.temperature = 1}), punished(s);
    for (const TokenId seen : {0, 1, 1}) punished.accept(seen);
    plain.sample(logits, 0);
    punished.sample(logits, 0);
    return (plain.log_probability(id) - plain.log_probability(3)) -
           (punished.log_probability(id) - punished.log_probability(3));
  };
  EXPECT_NEAR(ratio({.repetition_penalty = 2}, 0), 1, 1e-6);  // 2 / 2
  EXPECT_NEAR(ratio({.repetition_penalty = 2}, 1), 2, 1e-6);  // -2 * 2
  EXPECT_NEAR(ratio({.repetition_penalty = 2}, 2), 0, 1e-6);
  EXPECT_NEAR(ratio({.frequency_penalty = 0.5, .presence_penalty = 0.25}, 1), 1.25, 1e-6);
  EXPECT_NEAR(ratio({.penalty_window = 2, .frequency_penalty = 0.5}, 0), 0, 1e-6);  // out of the window
  EXPECT_NEAR(ratio({.logit_bias = {{2, -1.5F}}}, 2), 1.5, 1e-6);
}

// The definition, by comparing every earlier end with the end of the text.
std::map<TokenId, std::int64_t> repetitions(const std::vector<TokenId>& text,
                                            const std::vector<TokenId>& breakers) {
  std::map<TokenId, std::int64_t> longest;
  const auto n = static_cast<std::int64_t>(text.size());
  const auto at = [&](std::int64_t i) { return text[static_cast<std::size_t>(i)]; };
  for (std::int64_t end = 0; end + 1 < n; ++end) {
    std::int64_t length = 0;
    while (end - length >= 0 && at(end - length) == at(n - 1 - length) &&
           std::find(breakers.begin(), breakers.end(), at(n - 1 - length)) == breakers.end())
      ++length;
    longest[at(end + 1)] = std::max(longest[at(end + 1)], length);
  }
  return longest;
}

PROPERTY(Sampling, DryPunishesWhatWouldLengthenARepetition) {
  const auto text = test::draw_list(test::draw_length(), [] { return test::draw<TokenId>(0, 4); });
  const std::vector<TokenId> breakers = test::draw_of({std::vector<TokenId>{}, std::vector<TokenId>{3}});
  Sampling s{.temperature = 1, .dry_multiplier = 0.8, .dry_base = 1.75, .dry_allowed_length = 2};
  s.dry_breakers = breakers;
  Sampler sampler(s);
  for (const TokenId id : text) sampler.accept(id);
  const std::vector<float> logits(5, 0.0F);  // 4 never occurs
  sampler.sample(logits, 0);
  auto longest = repetitions(text, breakers);
  for (TokenId id = 0; id < 4; ++id) {
    const double over = static_cast<double>(longest[id] - 2);
    const double want = over >= 0 ? 0.8 * std::pow(1.75, over) : 0;
    HOLDS(std::abs(sampler.log_probability(4) - sampler.log_probability(id) - want) < 1e-4 * (1 + want));
  }
}

TEST(Sampling, MirostatHoldsTheSurprise) {
  const auto logits = random_logits(3, 500, 2);
  for (const int version : {1, 2}) {
    Sampler sampler({.temperature = 1, .mirostat = version, .mirostat_tau = 3, .seed = 5});
    double sum = 0;
    constexpr int kDraws = 2000;
    for (int i = 0; i < kDraws; ++i) {
      const TokenId id = sampler.sample(logits);
      sum -= sampler.log_probability(id) / std::log(2.0);
    }
    EXPECT_NEAR(sum / kDraws, 3, 0.1) << version;
  }
}

TEST(Sampling, AFilterHasTheLastWord) {
  struct OnlyEven : TokenFilter {
    std::vector<TokenId> seen;
    void mask(std::span<float> logits) override {
      for (std::size_t i = 1; i < logits.size(); i += 2) logits[i] = -INFINITY;
    }
    void accept(TokenId id) override { seen.push_back(id); }
  } filter;
  Sampler sampler({.temperature = 1, .logit_bias = {{1, 100.0F}}}, &filter);
  for (int i = 0; i < 100; ++i) {
    const TokenId id = sampler.sample(std::vector<float>(9, 0.0F));
    EXPECT_EQ(id % 2, 0);
    sampler.accept(id);
  }
  EXPECT_EQ(filter.seen, sampler.history());
  EXPECT_THROW(sampler.sample(std::vector<float>(3, -INFINITY)), UserError);
}

TEST(Sampling, RefusesWhatMakesNoSense) {
  for (const Sampling& s :
       {Sampling{.temperature = -1}, Sampling{.top_k = -1}, Sampling{.top_p = 0}, Sampling{.top_p = NAN},
        Sampling{.min_p = 2}, Sampling{.typical_p = 0}, Sampling{.repetition_penalty = 0},
        Sampling{.dry_base = 0.5}, Sampling{.mirostat = 3}})
    EXPECT_THROW(Sampler{s}, UserError);
}

}  // namespace
}  // namespace sinew::engine
