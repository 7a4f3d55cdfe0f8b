#include "kernels/cross_entropy.hpp"

#include <gtest/gtest.h>

#include "kernels/kernel_support.hpp"
#include "support/property.hpp"

namespace sinew {
namespace {

using test::random_matrix;
using test::relative_error;

template <class T>
void check(index_t tokens, index_t n, index_t vocabulary, const std::vector<std::int64_t>& targets) {
  const auto hidden = random_matrix<T>(tokens * n, 1), weight = random_matrix<T>(vocabulary * n, 2, 0.5);
  double loss = 0;
  std::vector<double> want_dh(hidden.size()), want_dw(weight.size()), p(vocabulary);
  for (index_t t = 0; t < tokens; ++t) {
    if (targets[t] == -100) continue;
    double sum = 0;
    for (index_t v = 0; v < vocabulary; ++v) {
      p[v] = 0;
      for (index_t i = 0; i < n; ++i)
        p[v] += static_cast<double>(to_float(hidden[t * n + i])) * to_float(weight[v * n + i]);
      sum += p[v] = std::exp(p[v]);
    }
    loss -= std::log(p[targets[t]] / sum);
    for (index_t v = 0; v < vocabulary; ++v) {
      const double d = p[v] / sum - (v == targets[t] ? 1 : 0);
      for (index_t i = 0; i < n; ++i) {
        want_dh[t * n + i] += d * to_float(weight[v * n + i]);
        want_dw[v * n + i] += d * to_float(hidden[t * n + i]);
      }
    }
  }
  for (const Isa isa : available_isas()) {
    std::vector<T> dh(hidden.size());
    std::vector<float> dw(weight.size(), 9);
    const double got = cross_entropy<T>(isa, tokens, n, vocabulary, hidden.data(), weight.data(),
                                        targets.data(), dh.data(), dw.data());
    HOLDS(std::abs(got - loss) <= 1e-5 * (1 + std::abs(loss)));
    HOLDS(got == cross_entropy<T>(isa, tokens, n, vocabulary, hidden.data(), weight.data(), targets.data(),
                                  static_cast<T*>(nullptr), nullptr));
    const double bound = std::is_same_v<T, bf16> ? 0.01 : 5e-6;
    HOLDS(relative_error(dh, want_dh) <= bound);
    HOLDS(relative_error(dw, want_dw) <= bound);
  }
}

PROPERTY(CrossEntropy, LossAndGradientsMatchDoubles) {
  const auto tokens = test::draw<index_t>(0, 60), n = test::draw<index_t>(1, 40);
  const auto vocabulary = test::draw<index_t>(1, 90);
  auto targets = test::draw_list(static_cast<std::size_t>(tokens),
                                 [&] { return test::draw<std::int64_t>(-1, vocabulary); });
  for (auto& t : targets)
    if (t < 0) t = -100;
  check<float>(tokens, n, vocabulary, targets);
  check<bf16>(tokens, n, vocabulary, targets);
}

TEST(CrossEntropy, PiecesOfTheTokens) {
  std::vector<std::int64_t> targets;
  for (index_t t = 0; t < 40; ++t) targets.push_back(t * 6001 % 140000);
  check<bf16>(40, 2, 140000, targets);  // 32 tokens at a time
}

}  // namespace
}  // namespace sinew
