#include "plan/fit.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "base/threads.hpp"

namespace sinew::plan {
namespace {

using Vector = std::vector<double>;

bool usable(const PublishedRun& run) {
  return run.measured != Measured::none && run.measured != Measured::out_of_memory &&
         run.measured_seconds > 0;
}

// log(predicted / measured), NaN where nothing was measured.
Vector residuals(const std::vector<PublishedRun>& runs, const Constants& constants) {
  Vector r(runs.size(), NAN);
  parallel_for(runs.size(), 4, [&](std::size_t begin, std::size_t end) {
    for (std::size_t i = begin; i < end; ++i)
      if (usable(runs[i]))
        r[i] = std::log(predict_run(runs[i], constants).seconds / runs[i].measured_seconds);
  });
  return r;
}

// Rows of one source say much the same: a source of n rows weighs as n^0.7.
Vector row_weights(const std::vector<PublishedRun>& runs) {
  std::map<std::string, int> sizes;
  for (const PublishedRun& run : runs) ++sizes[run.source];
  Vector w;
  for (const PublishedRun& run : runs)
    w.push_back(std::pow(sizes[run.source], -0.3) * (run.measured == Measured::tflops ? 0.5 : 1) *
                (run.layout_known ? 1 : 0.3));
  return w;
}

// Huber weights: quadratic below `knee`, linear above.
double robust(double r, double knee) { return std::abs(r) <= knee ? 1 : knee / std::abs(r); }

// Solves a symmetric positive definite system in place (Cholesky).
Vector solve(std::vector<Vector> a, Vector b) {
  const std::size_t n = b.size();
  for (std::size_t j = 0; j < n; ++j) {
    for (std::size_t k = 0; k < j; ++k) a[j][j] -= a[j][k] * a[j][k];
    a[j][j] = std::sqrt(std::max(a[j][j], 1e-12));
    for (std::size_t i = j + 1; i < n; ++i) {
      for (std::size_t k = 0; k < j; ++k) a[i][j] -= a[i][k] * a[j][k];
      a[i][j] /= a[j][j];
    }
  }
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t k = 0; k < i; ++k) b[i] -= a[i][k] * b[k];
    b[i] /= a[i][i];
  }
  for (std::size_t i = n; i-- > 0;) {
    for (std::size_t k = i + 1; k < n; ++k) b[i] -= a[k][i] * b[k];
    b[i] /= a[i][i];
  }
  return b;
}

constexpr double noise = 0.05;  // a run's own scatter
constexpr double knee = 0.08;

Constants at(const Vector& x) {
  Constants c = prior_constants();
  for (int i = 0; i < constant_count; ++i)
    c.values[i] *= std::exp(x[i] * info(static_cast<Constant>(i)).spread);
  return c;
}

Vector coordinates(const Constants& c) {
  Vector x(constant_count);
  for (int i = 0; i < constant_count; ++i) {
    const ConstantInfo& one = info(static_cast<Constant>(i));
    x[i] = std::log(c.values[i] / one.prior) / one.spread;
  }
  return x;
}

double loss(const Vector& r, const Vector& w, const Vector& x, const std::vector<bool>& out) {
  double total = 0;
  for (std::size_t i = 0; i < r.size(); ++i) {
    if (std::isnan(r[i]) || (!out.empty() && out[i])) continue;
    const double a = std::abs(r[i]);
    total += w[i] * (a <= knee ? a * a : knee * (2 * a - knee)) / (noise * noise);
  }
  for (const double v : x) total += v * v;
  return total;
}

// [constant][run] derivatives of the residuals.
std::vector<Vector> jacobian(const std::vector<PublishedRun>& runs, const Vector& x, const Vector& base) {
  std::vector<Vector> j(constant_count);
  constexpr double step = 0.05;
  for (int i = 0; i < constant_count; ++i) {
    Vector moved = x;
    moved[i] += step;
    j[i] = residuals(runs, at(moved));
    for (std::size_t n = 0; n < base.size(); ++n) j[i][n] = (j[i][n] - base[n]) / step;
  }
  return j;
}

Vector newton_step(const std::vector<Vector>& j, const Vector& r, const Vector& w, const Vector& x,
                   const std::vector<bool>& out) {
  std::vector<Vector> a(constant_count, Vector(constant_count, 0));
  Vector b(constant_count);
  for (int i = 0; i < constant_count; ++i) a[i][i] = 1, b[i] = -x[i];
  for (std::size_t n = 0; n < r.size(); ++n) {
    if (std::isnan(r[n]) || (!out.empty() && out[n])) continue;
    const double weight = w[n] * robust(r[n], knee) / (noise * noise);
    for (int i = 0; i < constant_count; ++i) {
      b[i] -= weight * j[i][n] * r[n];
      for (int k = 0; k <= i; ++k) a[i][k] += weight * j[i][n] * j[k][n];
    }
  }
  for (int i = 0; i < constant_count; ++i)
    for (int k = i + 1; k < constant_count; ++k) a[i][k] = a[k][i];
  return solve(a, b);
}

}  // namespace

Constants fit_constants(const std::vector<PublishedRun>& runs, const Constants& start, int rounds,
                        const std::vector<bool>& out) {
  const Vector w = row_weights(runs);
  Vector x = coordinates(start), r = residuals(runs, at(x));
  double best = loss(r, w, x, out);
  for (int round = 0; round < rounds; ++round) {
    const Vector step = newton_step(jacobian(runs, x, r), r, w, x, out);
    bool better = false;
    for (double length = 1; length > 0.05 && !better; length /= 2) {
      Vector next = x;
      for (int i = 0; i < constant_count; ++i) next[i] += length * step[i];
      const Vector moved = residuals(runs, at(next));
      const double value = loss(moved, w, next, out);
      if (value < best - 1e-9) {
        better = best - value > 1e-4 * best;
        x = next, r = moved, best = value;
        if (!better) return at(x);
      }
    }
    if (!better) break;
  }
  return at(x);
}

std::vector<RowError> errors(const std::vector<PublishedRun>& runs, const Constants& constants) {
  std::vector<RowError> rows(runs.size());
  parallel_for(runs.size(), 4, [&](std::size_t begin, std::size_t end) {
    for (std::size_t i = begin; i < end; ++i) {
      rows[i].predicted = predict_run(runs[i], constants).seconds;
      rows[i].measured = usable(runs[i]) ? runs[i].measured_seconds : 0;
      if (rows[i].measured > 0) rows[i].error = rows[i].predicted / rows[i].measured - 1;
      rows[i].counted =
          runs[i].measured == Measured::step_time || runs[i].measured == Measured::tokens_per_second;
    }
  });
  return rows;
}

Summary summarise(const std::vector<RowError>& rows) {
  Summary s;
  Vector all;
  for (const RowError& row : rows)
    if (row.counted) {
      all.push_back(std::abs(row.error));
      s.bias += std::log(row.predicted / row.measured);
    }
  s.rows = static_cast<int>(all.size());
  if (all.empty()) return s;
  std::sort(all.begin(), all.end());
  const std::size_t n = all.size();
  s.median = n % 2 ? all[n / 2] : (all[n / 2 - 1] + all[n / 2]) / 2;
  s.ninth_decile =
      all[std::min(n - 1, static_cast<std::size_t>(std::ceil(0.9 * static_cast<double>(n))) - 1)];
  s.mean = std::accumulate(all.begin(), all.end(), 0.0) / static_cast<double>(n);
  s.within_quarter =
      static_cast<double>(std::count_if(all.begin(), all.end(), [](double e) { return e <= 0.25; })) /
      static_cast<double>(n);
  s.bias /= static_cast<double>(n);
  return s;
}

double rank_correlation(const std::vector<RowError>& rows) {
  std::vector<const RowError*> kept;
  for (const RowError& row : rows)
    if (row.counted) kept.push_back(&row);
  const std::size_t n = kept.size();
  if (n < 3) return 1;
  const auto ranks = [&](auto value) {
    std::vector<std::size_t> order(n);
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.begin(), order.end(),
              [&](std::size_t a, std::size_t b) { return value(*kept[a]) < value(*kept[b]); });
    Vector rank(n);
    for (std::size_t i = 0; i < n;) {
      std::size_t j = i;
      while (j < n && value(*kept[order[j]]) == value(*kept[order[i]])) ++j;
      for (std::size_t k = i; k < j; ++k) rank[order[k]] = static_cast<double>(i + j - 1) / 2;
      i = j;
    }
    return rank;
  };
  const Vector a = ranks([](const RowError& r) { return r.predicted; });
  const Vector b = ranks([](const RowError& r) { return r.measured; });
  const double mean = static_cast<double>(n - 1) / 2;
  double ab = 0, aa = 0, bb = 0;
  for (std::size_t i = 0; i < n; ++i) {
    ab += (a[i] - mean) * (b[i] - mean);
    aa += (a[i] - mean) * (a[i] - mean);
    bb += (b[i] - mean) * (b[i] - mean);
  }
  return aa > 0 && bb > 0 ? ab / std::sqrt(aa * bb) : 1;
}

std::vector<RowError> leave_one_source_out(const std::vector<PublishedRun>& runs, const Constants& fitted) {
  std::map<std::string, std::vector<std::size_t>> sources;
  for (std::size_t i = 0; i < runs.size(); ++i) sources[runs[i].source].push_back(i);
  const Vector w = row_weights(runs), x = coordinates(fitted), r = residuals(runs, fitted);
  const std::vector<Vector> j = jacobian(runs, x, r);
  std::vector<RowError> rows(runs.size());
  for (const auto& [source, members] : sources) {
    std::vector<bool> out(runs.size(), false);
    for (const std::size_t i : members) out[i] = true;
    // Two Newton steps with the residuals of the remaining runs taken anew.
    Vector moved = x;
    Vector now = r;
    for (int round = 0; round < 2; ++round) {
      const Vector step = newton_step(j, now, w, moved, out);
      for (int i = 0; i < constant_count; ++i) moved[i] += step[i];
      if (round == 0) now = residuals(runs, at(moved));
    }
    std::vector<PublishedRun> mine;
    for (const std::size_t i : members) mine.push_back(runs[i]);
    const std::vector<RowError> found = errors(mine, at(moved));
    for (std::size_t i = 0; i < members.size(); ++i) rows[members[i]] = found[i];
  }
  return rows;
}

}  // namespace sinew::plan
