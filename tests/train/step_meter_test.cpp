#include "train/step_meter.hpp"

#include <gtest/gtest.h>

namespace sinew {
namespace {

StepReport report_of(StepMeter& meter, std::int64_t step, std::int64_t steps) {
  StepReport report;
  report.step = step;
  report.steps = steps;
  meter.fill(report, 10, 1000);
  return report;
}

TEST(StepMeter, GivesTheMeansOfAnInterval) {
  StepMeter meter;
  meter.add(100, 4, 1);
  meter.add(300, 4, 0);
  const StepReport r = report_of(meter, 2, 5);
  EXPECT_DOUBLE_EQ(r.tokens_per_second, 50);
  EXPECT_DOUBLE_EQ(r.mfu, 0.5);
  EXPECT_DOUBLE_EQ(r.step_seconds, 4);
  EXPECT_DOUBLE_EQ(r.data_seconds, 0.5);
  EXPECT_DOUBLE_EQ(r.seconds_left, 12);
}

TEST(StepMeter, SmoothsThePaceOverIntervals) {
  StepMeter meter;
  meter.add(1, 2, 0);
  EXPECT_DOUBLE_EQ(report_of(meter, 1, 11).seconds_left, 20);
  meter.restart();
  meter.add(1, 4, 0);
  const StepReport r = report_of(meter, 2, 12);
  EXPECT_DOUBLE_EQ(r.step_seconds, 4);
  EXPECT_DOUBLE_EQ(r.seconds_left, 22);  // 0.9 * 2 + 0.1 * 4, ten times
}

TEST(StepMeter, LeavesTheFirstStepOutOfTheMeanOfAll) {
  StepMeter meter;
  EXPECT_EQ(meter.mean_step(), 0);
  meter.add(1, 100, 0);
  EXPECT_EQ(meter.mean_step(), 0);
  meter.add(1, 2, 0);
  meter.restart();
  meter.add(1, 4, 0);
  EXPECT_DOUBLE_EQ(meter.mean_step(), 3);
}

}  // namespace
}  // namespace sinew
