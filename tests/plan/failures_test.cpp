#include "plan/failures.hpp"

#include <gtest/gtest.h>

#include <chrono>
#include <cmath>

#include "base/error.hpp"

namespace sinew::plan {
namespace {

constexpr double day = 24 * 3600;

// The Llama 3 Herd of Models, section 3.3.4: 16,384 H100, 54 days, 419 unexpected interruptions, over 90 %
// effective time.
TEST(Failures, PublishedRecord) {
  const FailureModel m = default_failures();
  EXPECT_NEAR(failures_per_hour(m, 16384) * 54 * 24, 419, 1e-6);
  const Goodput g = goodput_formula(m, 16384, 54 * day * 0.93);
  EXPECT_NEAR(g.mtbf_hours, 3.09, 0.01);
  EXPECT_GT(g.share, 0.90);
  EXPECT_NEAR(g.failures, 419, 10);
}

TEST(Failures, MonteCarloAgreesWithTheFormula) {
  for (const double accelerators : {1024.0, 16384.0, 100000.0}) {
    for (const bool memory : {false, true}) {
      FailureModel m = default_failures();
      m.in_memory = memory;
      const double work = 90 * day;
      const Goodput g = goodput_formula(m, accelerators, work);
      const MonteCarlo mc = goodput_monte_carlo(m, accelerators, work, 16, 7);
      EXPECT_NEAR(mc.share / g.share, 1, 0.02) << accelerators << (memory ? " memory" : "");
      EXPECT_NEAR(mc.failures / g.failures, 1, 0.06) << accelerators;
    }
  }
}

TEST(Failures, MonteCarloIsReproducible) {
  const FailureModel m = default_failures();
  const MonteCarlo a = goodput_monte_carlo(m, 50000, 10 * day, 8, 3),
                   b = goodput_monte_carlo(m, 50000, 10 * day, 8, 3);
  EXPECT_DOUBLE_EQ(a.share, b.share);
  EXPECT_NE(a.share, goodput_monte_carlo(m, 50000, 10 * day, 8, 4).share);
}

TEST(Failures, BestIntervalIsYoungsWhenFailuresAreRare) {
  FailureModel m = default_failures();
  const double mtbf = 3600 / failures_per_hour(m, 64);
  EXPECT_NEAR(best_interval(m, 64) / std::sqrt(2 * m.checkpoint * mtbf), 1, 0.01);
  const double best = goodput_formula(m, 16384, day).share;
  for (const double factor : {0.5, 2.0}) {
    FailureModel other = m;
    other.interval = best_interval(m, 16384) * factor;
    EXPECT_LT(goodput_formula(other, 16384, day).share, best);
  }
}

TEST(Failures, MemoryRecoveryAndSparesAreWorthSomething) {
  FailureModel m = default_failures();
  const double plain = goodput_formula(m, 100000, 90 * day).share;
  m.in_memory = true;
  EXPECT_GT(goodput_formula(m, 100000, 90 * day).share, plain);
  m.in_memory = false;
  const int spares = spares_needed(m, 100000);
  EXPECT_GT(spares, 20);
  const MonteCarlo enough = goodput_monte_carlo(m, 100000, 20 * day, 4, 1, spares);
  const MonteCarlo none = goodput_monte_carlo(m, 100000, 20 * day, 4, 1, spares / 3);
  EXPECT_LT(enough.waiting, 0.01);
  EXPECT_GT(none.waiting, 0.1);
}

TEST(Failures, NonsenseIsRefused) {
  FailureModel m = default_failures();
  m.restart = 1e6;
  EXPECT_THROW(goodput_formula(m, 1000000, day), UserError);
  m = default_failures();
  m.components[0].per_million_hours = -1;
  EXPECT_THROW(goodput_formula(m, 1000, day), UserError);
  m = default_failures();
  m.components.clear();
  EXPECT_NEAR(goodput_formula(m, 1000, day).share, 1, 1e-3);
}

}  // namespace
}  // namespace sinew::plan
