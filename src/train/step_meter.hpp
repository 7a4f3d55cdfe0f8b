// What the steps of a run take: since the last line that was logged, and over all.
#pragma once

#include <cstdint>

#include "train/report.hpp"

namespace sinew {

class StepMeter {
 public:
  // A step of `tokens` took `seconds`, `waiting` of them for data.
  void add(std::uint64_t tokens, double seconds, double waiting) {
    tokens_ += tokens;
    seconds_ += seconds;
    waiting_ += waiting;
    ++steps_;
    if (begun_++ > 0) all_seconds_ += seconds, ++timed_;
  }
  // Means of the interval, and what is left of the run at a smoothed step's pace.
  void fill(StepReport& report, double flops_per_token, double peak) {
    const auto steps = static_cast<double>(steps_);
    report.tokens_per_second = static_cast<double>(tokens_) / seconds_;
    report.mfu = report.tokens_per_second * flops_per_token / peak;
    report.step_seconds = seconds_ / steps;
    report.data_seconds = waiting_ / steps;
    usual_ = usual_ == 0 ? report.step_seconds : 0.9 * usual_ + 0.1 * report.step_seconds;
    report.seconds_left = usual_ * static_cast<double>(report.steps - report.step);
  }
  // The next interval begins.
  void restart() {
    seconds_ = waiting_ = 0;
    tokens_ = 0;
    steps_ = 0;
  }
  // The mean of all steps but this process's first, which warms up.
  double mean_step() const { return timed_ > 0 ? all_seconds_ / static_cast<double>(timed_) : 0; }

 private:
  double seconds_ = 0, waiting_ = 0;
  std::uint64_t tokens_ = 0;
  std::int64_t steps_ = 0;
  double usual_ = 0;
  double all_seconds_ = 0;
  std::int64_t begun_ = 0, timed_ = 0;
};

}  // namespace sinew
