// Scales, ticks and their labels.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/chart.hpp"

namespace sinew::chart {
namespace {

std::vector<double> linear_ticks(double min, double max, int count) {
  const double rough = (max - min) / std::max(1, count);
  if (!(rough > 0) || !std::isfinite(rough)) return {min};
  const double power = std::pow(10, std::floor(std::log10(rough)));
  const double unit = rough / power;
  const double step = power * (unit < 1.5 ? 1 : unit < 3.5 ? 2 : unit < 7.5 ? 5 : 10);
  std::vector<double> ticks;
  // Multiples of the step, so that no rounding adds up; 0 without a sign.
  for (double i = std::ceil(min / step - 1e-9); i * step <= max + 1e-9 * step; ++i)
    ticks.push_back(i == 0 ? 0 : i * step);
  return ticks;
}

std::vector<double> log_ticks(double min, double max, int count) {
  const int low = static_cast<int>(std::floor(std::log10(min))),
            high = static_cast<int>(std::ceil(std::log10(max)));
  const int every = std::max(1, (high - low) / std::max(1, count));
  std::vector<double> ticks;
  for (const bool between : {false, true}) {
    ticks.clear();
    for (int p = low; p <= high; p += every)
      for (const double factor : {1.0, 2.0, 5.0}) {
        const double tick = factor * std::pow(10, p);
        if ((between || factor == 1) && tick >= min * (1 - 1e-9) && tick <= max * (1 + 1e-9))
          ticks.push_back(tick);
      }
    if (ticks.size() >= 3) break;
  }
  return ticks.size() >= 3 ? ticks : linear_ticks(min, max, count);
}

std::string trimmed(std::string text) {
  if (text.find('.') == std::string::npos || text.find('e') != std::string::npos) return text;
  text.erase(text.find_last_not_of('0') + 1);
  if (text.back() == '.') text.pop_back();
  return text;
}

}  // namespace

std::vector<double> nice_ticks(double min, double max, int count, bool log) {
  return log && min > 0 ? log_ticks(min, max, count) : linear_ticks(min, max, count);
}

std::vector<std::string> tick_labels(const std::vector<double>& ticks) {
  double largest = 0, gap = INFINITY;
  for (std::size_t i = 0; i < ticks.size(); ++i) {
    largest = std::max(largest, std::abs(ticks[i]));
    if (i > 0) gap = std::min(gap, std::abs(ticks[i] - ticks[i - 1]));
  }
  if (!std::isfinite(gap)) gap = largest;
  const bool tiny = gap < 1e-4;
  std::vector<std::string> labels;
  for (const double tick : ticks) {
    const double size = std::abs(tick);
    if (size == 0)
      labels.emplace_back("0");
    else if (tiny || size >= 1e15)
      labels.push_back(fmt::format("{:.6g}", tick));
    else if (largest < 10'000)
      labels.push_back(trimmed(fmt::format("{:.6f}", tick)));
    else if (size >= 1e12)
      labels.push_back(trimmed(fmt::format("{:.6f}", tick / 1e12)) + "T");
    else if (size >= 1e9)
      labels.push_back(trimmed(fmt::format("{:.6f}", tick / 1e9)) + "B");
    else if (size >= 1e6)
      labels.push_back(trimmed(fmt::format("{:.6f}", tick / 1e6)) + "M");
    else if (size >= 1e3)
      labels.push_back(trimmed(fmt::format("{:.6f}", tick / 1e3)) + "k");
    else
      labels.push_back(trimmed(fmt::format("{:.6f}", tick)));
  }
  return labels;
}

bool Scale::holds(double value) const { return std::isfinite(value) && (!log || value > 0); }

double Scale::operator()(double value) const {
  const double part = log ? std::log(value / min) / std::log(max / min) : (value - min) / (max - min);
  return from + part * (to - from);
}

std::vector<double> smoothed(const std::vector<double>& values, double keep) {
  std::vector<double> out;
  double sum = 0, weight = 0;
  for (const double value : values) {
    if (!std::isfinite(value)) {
      out.push_back(value);
      continue;
    }
    sum = keep * sum + (1 - keep) * value;
    weight = keep * weight + (1 - keep);
    out.push_back(sum / weight);
  }
  return out;
}

}  // namespace sinew::chart
