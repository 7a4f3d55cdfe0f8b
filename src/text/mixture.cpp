#include "text/mixture.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.hpp"

namespace sinew {
namespace {

// Counts of each source in a period, adding up to the period.
std::vector<std::uint64_t> period_counts(std::vector<double> shares) {
  const auto fits = [&](std::uint64_t period) {
    return std::all_of(shares.begin(), shares.end(), [&](double share) {
      const double count = share * static_cast<double>(period);
      return std::round(count) >= 1 && std::abs(count - std::round(count)) < 1e-9;
    });
  };
  for (std::uint64_t period = shares.size(); period <= 4096; ++period) {
    if (!fits(period)) continue;
    std::vector<std::uint64_t> counts;
    for (const double share : shares)
      counts.push_back(static_cast<std::uint64_t>(std::llround(share * static_cast<double>(period))));
    if (std::accumulate(counts.begin(), counts.end(), std::uint64_t{0}) == period) return counts;
  }
  // Largest remainders, at least one sample each.
  constexpr std::uint64_t period = std::uint64_t{1} << 20;
  std::vector<std::uint64_t> counts;
  std::vector<std::pair<double, std::size_t>> remainders;
  std::uint64_t given = 0;
  for (std::size_t s = 0; s < shares.size(); ++s) {
    const double exact = shares[s] * static_cast<double>(period);
    counts.push_back(std::max<std::uint64_t>(1, static_cast<std::uint64_t>(exact)));
    remainders.emplace_back(static_cast<double>(counts.back()) - exact, s);
    given += counts.back();
  }
  std::sort(remainders.begin(), remainders.end());
  for (std::size_t i = 0; given < period; i = (i + 1) % remainders.size(), ++given)
    ++counts[remainders[i].second];
  while (given > period) {  // many tiny weights were rounded up: the largest source pays
    --*std::max_element(counts.begin(), counts.end());
    --given;
  }
  return counts;
}

}  // namespace

Mixture::Mixture(std::span<const double> weights) {
  require(!weights.empty() && weights.size() <= 65535, "{} data sources: between 1 and 65535 can be mixed",
          weights.size());
  for (const double weight : weights)
    require(std::isfinite(weight) && weight > 0, "data weight {}: must be positive", weight);
  const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
  std::vector<double> shares;
  for (const double weight : weights) shares.push_back(weight / sum);
  per_period_ = period_counts(std::move(shares));

  const auto k = static_cast<std::int64_t>(per_period_.size());
  const auto period =
      static_cast<std::int64_t>(std::accumulate(per_period_.begin(), per_period_.end(), std::uint64_t{0}));
  source_.resize(static_cast<std::size_t>(period));
  ordinal_.resize(source_.size());
  std::vector<std::int64_t> had(per_period_.size(), 0);
  for (std::int64_t n = 1; n <= period; ++n) {
    // In units of 1/period: lead = n share - had. A source may be picked once its lead is at least
    // 1/(2k-2); of those, the one whose lead would first reach 1 - 1/(2k-2).
    std::size_t best = 0;
    double best_time = INFINITY;
    for (std::size_t s = 0; s < had.size(); ++s) {
      const auto count = static_cast<std::int64_t>(per_period_[s]);
      const std::int64_t lead = n * count - had[s] * period;
      if (k > 1 && lead * (2 * k - 2) < period) continue;
      const double slack = 1.0 - (k > 1 ? 1.0 / static_cast<double>(2 * k - 2) : 0.0);
      const double time =
          (slack * static_cast<double>(period) - static_cast<double>(lead)) / static_cast<double>(count);
      if (time < best_time) {
        best_time = time;
        best = s;
      }
    }
    source_[static_cast<std::size_t>(n - 1)] = static_cast<std::uint16_t>(best);
    ordinal_[static_cast<std::size_t>(n - 1)] = static_cast<std::uint32_t>(had[best]++);
  }
}

Mixture::Pick Mixture::operator()(std::uint64_t n) const {
  const std::uint64_t period = source_.size();
  const std::size_t at = n % period, source = source_[at];
  return {source, n / period * per_period_[source] + ordinal_[at]};
}

double Mixture::share(std::size_t source) const {
  return static_cast<double>(per_period_[source]) / static_cast<double>(source_.size());
}

}  // namespace sinew
