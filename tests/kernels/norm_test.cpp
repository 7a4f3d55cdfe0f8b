#include "kernels/norm.hpp"

#include <gtest/gtest.h>

#include "kernels/kernel_support.hpp"
#include "support/property.hpp"

namespace sinew {
namespace {

using test::random_matrix;
using test::relative_error;

template <class T>
void check(index_t rows, index_t n, index_t gap, bool added, bool accumulate) {
  const index_t ld = n + gap;
  const auto x = random_matrix<T>(rows * ld, 1), addend = random_matrix<T>(rows * n, 2),
             weight = random_matrix<T>(n, 3);
  const auto dy = random_matrix<T>(rows * n, 4), d_sum = random_matrix<T>(rows * n, 5);
  constexpr double kEps = 1e-3;
  for (const Isa isa : available_isas()) {
    std::vector<T> sum(rows * n), y(rows * n), dx(rows * n);
    std::vector<float> inverse(rows), d_weight(n, 0.5F);
    rms_norm_forward(isa, rows, n, x.data(), ld, added ? addend.data() : nullptr, weight.data(), kEps,
                     added ? sum.data() : nullptr, y.data(), inverse.data());
    std::vector<double> want_sum, want_y, want_dx, want_dw(n, accumulate ? 0.5 : 0);
    // The sums of the terms' sizes: where terms cancel, their sum is no more exact than they are.
    std::vector<double> size_dw = want_dw;
    std::vector<T> normalised;  // what backward is given: the stored, rounded sum
    for (index_t r = 0; r < rows; ++r) {
      double squares = 0, pull = 0;
      for (index_t i = 0; i < n; ++i) {
        const double exact =
            to_float(x[r * ld + i]) + static_cast<double>(added ? to_float(addend[r * n + i]) : 0);
        want_sum.push_back(exact);
        normalised.push_back(added ? sum[r * n + i] : x[r * ld + i]);
        squares += std::pow(to_float(normalised.back()), 2);
      }
      const double inv = 1 / std::sqrt(squares / static_cast<double>(n) + kEps);
      for (index_t i = 0; i < n; ++i) {
        const double v = to_float(normalised[r * n + i]), g = to_float(dy[r * n + i]),
                     w = to_float(weight[i]);
        want_y.push_back(v * inv * w);
        want_dw[i] += g * v * inv;
        size_dw[i] += std::abs(g * v * inv);
        pull += g * w * v;
      }
      for (index_t i = 0; i < n; ++i)
        want_dx.push_back((added ? to_float(d_sum[r * n + i]) : 0) +
                          to_float(dy[r * n + i]) * to_float(weight[i]) * inv -
                          to_float(normalised[r * n + i]) * pull * inv * inv * inv / static_cast<double>(n));
    }
    rms_norm_backward(isa, rows, n, normalised.data(), n, dy.data(), added ? d_sum.data() : nullptr,
                      weight.data(), inverse.data(), dx.data(), d_weight.data(), accumulate);
    const double bound = std::is_same_v<T, bf16> ? 0.004 : 3e-6;
    if (added) HOLDS(relative_error(sum, want_sum) <= bound);
    HOLDS(relative_error(y, want_y) <= bound);
    HOLDS(relative_error(dx, want_dx) <= bound);
    for (index_t i = 0; i < n; ++i) HOLDS(std::abs(d_weight[i] - want_dw[i]) <= 3e-6 * size_dw[i]);
  }
}

PROPERTY(Norm, ForwardAndGradientsMatchDoubles) {
  const auto rows = test::draw<index_t>(1, 300), n = test::draw<index_t>(1, 80);
  const auto gap = test::draw<index_t>(0, 5);
  const auto added = test::draw_bool(), accumulate = test::draw_bool();
  check<float>(rows, n, gap, added, accumulate);
  check<bf16>(rows, n, gap, added, accumulate);
}

}  // namespace
}  // namespace sinew
