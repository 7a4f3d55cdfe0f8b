// The pure parts of `sinew bench lean`: networks of equal work, and the law that turns losses into compute.
#include <gtest/gtest.h>

#include <cmath>

#include "base/error.hpp"
#include "support/property.hpp"
#include "train/lean_fit.hpp"
#include "train/lean_models.hpp"
#include "train/lean_report.hpp"

namespace sinew {
namespace {

// Each kind rounds its width to a whole element: at most half an element of 3 x hidden a network (one of
// `fine`, exact; one of `dense`; two of `top2`), so 3 x hidden / 2 x 2 a layer, whatever the size.
TEST(LeanModels, TheKindsOfASizeHaveEqualWorkToTheRounding) {
  for (const std::int64_t hidden : {32, 64, 96, 128, 160, 192, 256, 512, 1024})
    for (const std::int64_t layers : {1, 4, 12}) {
      const LeanSize size{.hidden = hidden, .layers = layers};
      const auto counts = [&](LeanKind kind) { return count_lean(lean_model(kind, size, 2048, 256), 256); };
      const LeanCounts fine = counts(LeanKind::fine), top2 = counts(LeanKind::top2);
      for (const LeanCounts& other : {counts(LeanKind::dense), top2}) {
        EXPECT_LE(std::abs(other.active - fine.active), 3 * hidden * layers) << size.name();
        EXPECT_NEAR(other.flops_per_token / fine.flops_per_token, 1, 0.01) << size.name();
        EXPECT_NEAR(other.flops_per_token - fine.flops_per_token,
                    6 * static_cast<double>(other.active - fine.active), 1e-3);
      }
      EXPECT_GT(static_cast<double>(fine.total), 1.5 * static_cast<double>(fine.active));
      EXPECT_NEAR(static_cast<double>(top2.total) / static_cast<double>(fine.total), 1, 0.05) << size.name();
    }
}

TEST(LeanModels, AreReadBackAsTheyWereWritten) {
  for (const LeanKind kind : kLeanKinds) {
    const ModelConfig model = lean_model(kind, {.hidden = 96, .layers = 4}, 2048, 256);
    EXPECT_EQ(parse_model_config(write_model_config(model)), model) << lean_name(kind);
  }
}

TEST(LeanModels, SizesAndKindsAreReadOrRefused) {
  EXPECT_EQ(parse_lean_size("128x5"), (LeanSize{.hidden = 128, .layers = 5}));
  for (const char* bad :
       {"", "128", "128x", "x5", "100x5", "0x5", "128x0", "128x5x2", "8192x2", "64x999", "-64x2"})
    EXPECT_THROW(parse_lean_size(bad), UserError) << bad;
  for (const LeanKind kind : kLeanKinds) EXPECT_EQ(parse_lean_kind(lean_name(kind)), kind);
  EXPECT_THROW(parse_lean_kind("sparse"), UserError);
}

std::vector<LossPoint> points_of(const PowerLaw& law, std::initializer_list<double> computes) {
  std::vector<LossPoint> points;
  for (const double c : computes) points.push_back({c, law.loss(c)});
  return points;
}

PROPERTY(LeanFit, FindsThePowerLawItsPointsAreOf) {
  const auto within = [](double low, double high) { return low + (high - low) * test::draw(0, 1000) / 1000; };
  const PowerLaw law{
      .floor = within(0.5, 3), .scale = within(0.5, 2), .exponent = within(0.1, 0.8), .reference = 1e13};
  const auto points = points_of(law, {2e12, 4e12, 1e13, 2e13, 8e13});
  const PowerLaw fit = fit_power_law(points);
  HOLDS(fit.rms < 1e-5);
  HOLDS(std::abs(fit.exponent / law.exponent - 1) < 0.02);
  const double wanted = 1.7e13, found = fit.compute(law.loss(wanted)).value();
  HOLDS(std::abs(found / wanted - 1) < 1e-3);
}

TEST(LeanFit, ThreePointsGetALawWithoutFloorAndTwoGoThroughBoth) {
  const PowerLaw law{.floor = 0, .scale = 3, .exponent = 0.2, .reference = 1e13};
  EXPECT_NEAR(fit_power_law(points_of(law, {1e12, 1e13, 1e14})).exponent, 0.2, 1e-4);
  const PowerLaw two = fit_power_law(points_of(law, {1e12, 1e13}));
  EXPECT_EQ(two.floor, 0);
  EXPECT_NEAR(two.loss(1e12), law.loss(1e12), 1e-6);
}

TEST(LeanFit, NothingReachesTheFloorAndBadPointsAreRefused) {
  const PowerLaw law{.floor = 2, .scale = 1, .exponent = 0.3, .reference = 1};
  EXPECT_FALSE(law.compute(2).has_value());
  EXPECT_FALSE(law.compute(1.5).has_value());
  EXPECT_NEAR(law.compute(3).value(), 1, 1e-12);
  EXPECT_THROW(fit_power_law(std::vector<LossPoint>{}), UserError);
  EXPECT_THROW(fit_power_law(std::vector<LossPoint>{{1e12, 4}, {1e12, 4.1}}), UserError);
  EXPECT_THROW(fit_power_law(std::vector<LossPoint>{{1e12, 4}, {1e13, 4.1}}), UserError);
}

TEST(LeanFit, InterpolatesBetweenNeighboursAndNotBeyond) {
  const std::vector<LossPoint> points{{1e12, 5.0}, {4e12, 4.0}, {1e12, 5.2}, {1.6e13, 3.5}};
  EXPECT_NEAR(interpolated_compute(points, 4.55).value(), 2e12,
              1e3);  // half way between 5.1 and 4 in the log
  EXPECT_NEAR(interpolated_compute(points, 3.75).value(), 8e12, 1e3);
  EXPECT_FALSE(interpolated_compute(points, 5.3).has_value());
  EXPECT_FALSE(interpolated_compute(points, 3.4).has_value());
}

LeanResult result_of(LeanKind kind, const LeanSize& size, std::int64_t seed) {
  return {.run = {kind, size, seed},
          .counts = count_lean(lean_model(kind, size, 2048, 256), 256),
          .tokens = 1'000'000};
}

// Mixtures that are as good as dense networks of 2.5 and 4 times their compute.
TEST(LeanReport, SaysHowMuchDenseComputeWouldHaveDone) {
  const PowerLaw law{.floor = 1.5, .scale = 2, .exponent = 0.3, .reference = 1e13};
  std::vector<LeanResult> results;
  for (const auto& size :
       {LeanSize{64, 4}, LeanSize{96, 4}, LeanSize{128, 5}, LeanSize{160, 6}, LeanSize{192, 8}}) {
    auto r = result_of(LeanKind::dense, size, 1);
    r.loss = law.loss(r.compute());
    results.push_back(r);
  }
  for (const std::int64_t seed : {1, 2}) {
    auto r = result_of(LeanKind::fine, {64, 4}, seed);
    r.loss = law.loss((seed == 1 ? 2.5 : 4) * r.compute());
    results.push_back(r);
  }
  const LeanReport report = lean_report(results);
  ASSERT_EQ(report.equal.size(), 1u);
  EXPECT_NEAR(report.equal[0].by_law.mean, std::sqrt(10.0), 0.01);
  EXPECT_NEAR(report.equal[0].by_law.least, 2.5, 0.01);
  EXPECT_NEAR(report.equal[0].by_law.most, 4, 0.01);
  EXPECT_EQ(report.equal[0].between.seeds, 2u);
  EXPECT_NEAR(report.equal[0].between.mean, std::sqrt(10.0), 0.2);  // a straight line for a bent one
  EXPECT_NE(lean_markdown(report).find("| 7 of 32 experts and 1 shared | 64x4 | 3.16 (2.50 to 4.00) |"),
            std::string::npos)
      << lean_markdown(report);
}

}  // namespace
}  // namespace sinew
