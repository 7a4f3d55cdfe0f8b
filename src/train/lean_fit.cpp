#include "train/lean_fit.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <vector>

#include "base/error.hpp"

namespace sinew {
namespace {

std::size_t different_computes(std::span<const LossPoint> points) {
  std::map<double, int> seen;
  for (const auto& p : points) ++seen[p.compute];
  return seen.size();
}

// The best law of one exponent: linear least squares in x = (compute / reference)^-exponent.
PowerLaw law_of(std::span<const LossPoint> points, double reference, double exponent, bool with_floor) {
  PowerLaw law{.exponent = exponent, .reference = reference};
  const auto x = [&](const LossPoint& p) { return std::pow(p.compute / reference, -exponent); };
  const auto n = static_cast<double>(points.size());
  double mean_x = 0, mean_y = 0, xx = 0, xy = 0;
  for (const auto& p : points) mean_x += x(p) / n, mean_y += p.loss / n;
  for (const auto& p : points) {
    const double dx = x(p) - (with_floor ? mean_x : 0);
    xx += dx * dx;
    xy += dx * (p.loss - (with_floor ? mean_y : 0));
  }
  law.scale = xx > 0 ? xy / xx : 0;
  law.floor = with_floor ? mean_y - law.scale * mean_x : 0;
  if (law.floor < 0) return law_of(points, reference, exponent, false);
  double squares = 0;
  for (const auto& p : points) squares += std::pow(law.loss(p.compute) - p.loss, 2);
  law.rms = std::sqrt(squares / n);
  return law;
}

}  // namespace

double PowerLaw::loss(double compute) const {
  return floor + scale * std::pow(compute / reference, -exponent);
}

std::optional<double> PowerLaw::compute(double loss) const {
  if (!(loss > floor)) return std::nullopt;
  return reference * std::pow((loss - floor) / scale, -1 / exponent);
}

PowerLaw fit_power_law(std::span<const LossPoint> points) {
  const std::size_t different = different_computes(points);
  require(different >= 2, "a law needs losses at two amounts of compute or more; there {} {}",
          different == 1 ? "is" : "are", different);
  double logs = 0;
  for (const auto& p : points) logs += std::log(p.compute) / static_cast<double>(points.size());
  const double reference = std::exp(logs);
  const bool with_floor = different >= 4;
  const auto at = [&](double log_exponent) {
    return law_of(points, reference, std::exp(log_exponent), with_floor);
  };
  // The error has one valley in practice; a scan finds it and golden section its bottom.
  constexpr int kScan = 200;
  const double low = std::log(1e-3), high = std::log(4.0), step = (high - low) / kScan;
  int best = 0;
  for (int i = 1; i <= kScan; ++i)
    if (at(low + i * step).rms < at(low + best * step).rms) best = i;
  double a = low + (best - 1) * step, b = low + (best + 1) * step;
  constexpr double kGolden = 0.6180339887498949;
  for (int i = 0; i < 80; ++i) {
    const double c = b - kGolden * (b - a), d = a + kGolden * (b - a);
    (at(c).rms < at(d).rms ? b : a) = at(c).rms < at(d).rms ? d : c;
  }
  const PowerLaw law = at((a + b) / 2);
  require(law.scale > 0 && best > 0, "the losses of the dense networks do not fall as compute grows");
  return law;
}

std::optional<double> interpolated_compute(std::span<const LossPoint> points, double loss) {
  std::map<double, std::pair<double, int>> sums;
  for (const auto& p : points) {
    sums[p.compute].first += p.loss;
    ++sums[p.compute].second;
  }
  std::vector<LossPoint> means;
  for (const auto& [compute, sum] : sums) means.push_back({compute, sum.first / sum.second});
  for (std::size_t i = 1; i < means.size(); ++i) {
    const auto &left = means[i - 1], &right = means[i];
    if (loss > left.loss || loss < right.loss || left.loss <= right.loss) continue;
    const double part = (left.loss - loss) / (left.loss - right.loss);
    return left.compute * std::pow(right.compute / left.compute, part);
  }
  return std::nullopt;
}

}  // namespace sinew
