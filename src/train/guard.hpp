// Which steps to take: a loss or gradient that is not finite, or a loss far over the recent ones, would do
// damage that lasts.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace sinew {

class SpikeGuard {
 public:
  // A loss over `factor` times the median of the last 32 good ones is a spike; 0: none is.
  explicit SpikeGuard(double factor) : factor_(factor) {}

  // Why the step must be skipped, or "". Remembers the loss of a good step.
  std::string judge(double loss, double gradient_norm);
  std::int64_t skipped_in_a_row() const { return skipped_; }

  struct State {
    std::vector<double> recent;
    std::int64_t skipped = 0;
  };
  State state() const { return {recent_, skipped_}; }
  void restore(State state);

 private:
  double factor_;
  std::vector<double> recent_;
  std::int64_t skipped_ = 0;
};

}  // namespace sinew
