#include "text/mixture.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "base/error.hpp"
#include "support/property.hpp"

namespace sinew {
namespace {

// Largest |count - n share| over the first `samples` samples; ordinals must count up by one.
double worst_error(const Mixture& mixture, std::span<const double> weights, std::uint64_t samples) {
  const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
  std::vector<std::uint64_t> had(weights.size(), 0);
  double worst = 0;
  for (std::uint64_t n = 0; n < samples; ++n) {
    const auto pick = mixture(n);
    if (pick.ordinal != had[pick.source]) return INFINITY;
    ++had[pick.source];
    for (std::size_t s = 0; s < had.size(); ++s)
      worst = std::max(worst,
                       std::abs(static_cast<double>(had[s]) - static_cast<double>(n + 1) * weights[s] / sum));
  }
  return worst;
}

TEST(Mixture, OneSourceGivesEverything) {
  const std::vector<double> one{0.3};
  const Mixture mixture(one);
  for (std::uint64_t n : {0, 1, 77}) EXPECT_EQ(mixture(n).ordinal, n);
}

TEST(Mixture, KnownShares) {
  for (const std::vector<double>& weights :
       {std::vector<double>{0.7, 0.3}, {1, 2, 3}, {5, 1, 1, 1, 1, 1}, {0.9, 0.05, 0.05}}) {
    const Mixture mixture(weights);
    EXPECT_LT(worst_error(mixture, weights, 3000), 1) << weights[0];
    EXPECT_NEAR(mixture.share(0), weights[0] / std::accumulate(weights.begin(), weights.end(), 0.0), 1e-12);
  }
}

PROPERTY(Mixture, ErrorStaysUnderOneSample) {
  const auto raw = test::draw_list(1 + test::draw_length(), [] { return test::draw(1, 100000); });
  const bool odd = test::draw_bool();  // shares that fit no small denominator
  std::vector<double> weights;
  for (const int w : raw)
    if (!odd || weights.size() < 6) weights.push_back(odd ? std::sqrt(w) : w % 20 + 1);
  HOLDS(worst_error(Mixture(weights), weights, 600) < 1);
}

TEST(Mixture, WrongWeights) {
  for (const double bad : {0.0, -1.0, double(INFINITY), double(NAN)}) {
    const std::vector<double> weights{1, bad};
    EXPECT_THROW(Mixture{weights}, UserError);
  }
  EXPECT_THROW(Mixture{std::span<const double>()}, UserError);
}

}  // namespace
}  // namespace sinew
