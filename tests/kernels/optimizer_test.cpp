#include "kernels/optimizer.hpp"

#include <gtest/gtest.h>

#include "kernels/kernel_support.hpp"
#include "support/property.hpp"

namespace sinew {
namespace {

using test::random_matrix;

PROPERTY(Optimizer, AdamWMatchesDoubles) {
  const auto n = test::draw<index_t>(1, 200) * test::draw_of<index_t>({1, 1, 1, 100});
  const auto w0 = random_matrix<float>(n, 1), m0 = random_matrix<float>(n, 2),
             g0 = random_matrix<float>(n, 3);
  auto v0 = random_matrix<float>(n, 4);
  for (float& x : v0) x *= x;
  const AdamWFactors f{0.9F, 0.1F, 0.95F, 0.05F, 1e-8F, 0.01F, 1.3F, 0.7F, 0.999F};
  const bool zero = test::draw_bool();
  double squares = 0;
  for (const float g : g0) squares += zero ? 0 : static_cast<double>(g) * g;
  for (const Isa isa : available_isas()) {
    auto w = w0, m = m0, v = v0, g = g0;
    std::vector<bf16> narrow(n);
    const AdamWSpan span{w.data(), m.data(), v.data(), zero ? nullptr : g.data(), narrow.data(), n, f};
    HOLDS(std::abs(sum_of_squares(isa, {&span, 1}) - squares) <= 1e-5 * squares);
    adamw(isa, {&span, 1});
    for (index_t i = 0; i < n; ++i) {
      const double gradient = zero ? 0 : g0[i] * 0.7, m1 = 0.9 * m0[i] + 0.1 * gradient;
      const double v1 = 0.95 * v0[i] + 0.05 * gradient * gradient;
      const double w1 = w0[i] * 0.999 - 0.01 * m1 / (std::sqrt(v1) * 1.3 + 1e-8);
      HOLDS(std::abs(m[i] - m1) <= 1e-6 * (1 + std::abs(m1)));
      HOLDS(std::abs(v[i] - v1) <= 1e-6 * (1 + std::abs(v1)));
      HOLDS(std::abs(w[i] - w1) <= 2e-6 * (1 + std::abs(w0[i]) + std::abs(w1 - w0[i])));
      HOLDS(narrow[i].bits == to_bf16(w[i]).bits);
    }
  }
}

}  // namespace
}  // namespace sinew
