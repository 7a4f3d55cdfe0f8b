#include "train/schedule.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace sinew {
namespace {

// Factor on the peak rate after the warmup.
double decay(const RunConfig& config, std::int64_t step) {
  const auto& s = config.schedule;
  const std::int64_t steps = config.train.steps;
  if (s.kind == "cosine") {
    const double span = static_cast<double>(std::max<std::int64_t>(1, steps - 1 - s.warmup));
    const double progress = std::min(1.0, static_cast<double>(step - s.warmup) / span);
    return s.final_ratio + (1 - s.final_ratio) * 0.5 * (1 + std::cos(std::numbers::pi * progress));
  }
  if (s.kind == "wsd") {
    const auto length = static_cast<std::int64_t>(s.decay_fraction * static_cast<double>(steps));
    const std::int64_t into = step - (steps - length) + 1;
    if (into <= 0) return 1;
    return 1 -
           (1 - s.final_ratio) * static_cast<double>(std::min(into, length)) / static_cast<double>(length);
  }
  if (s.kind == "step") {
    double factor = 1;
    for (const double fraction : s.step_fractions)
      if (static_cast<double>(step) >= fraction * static_cast<double>(steps)) factor *= s.step_factor;
    return factor;
  }
  return 1;
}

}  // namespace

double learning_rate(const RunConfig& config, std::int64_t step) {
  const std::int64_t warmup = config.schedule.warmup;
  if (step < warmup) return config.optimizer.lr * static_cast<double>(step + 1) / static_cast<double>(warmup);
  return config.optimizer.lr * decay(config, step);
}

std::int64_t batch_size(const RunConfig& config, std::int64_t step) {
  const auto& t = config.train;
  if (t.batch_start == 0 || step >= t.batch_ramp) return t.batch;
  const std::int64_t unit = t.micro_batch == 0 ? 1 : t.micro_batch;
  const double grown = static_cast<double>(t.batch - t.batch_start) * static_cast<double>(step) /
                       static_cast<double>(t.batch_ramp);
  const std::int64_t rows = t.batch_start + static_cast<std::int64_t>(grown);
  return std::max(std::min(t.batch_start, t.batch), rows / unit * unit);
}

double bias_speed(const RunConfig& config, std::int64_t step) {
  const double until = config.balance.bias_until * static_cast<double>(config.train.steps);
  return static_cast<double>(step) < until ? config.balance.bias_speed : 0;
}

}  // namespace sinew
