#include "kernels/sum.hpp"

#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>

#include "kernels/kernel_support.hpp"

namespace sinew {
namespace {

using test::random_matrix;

template <class T>
void check(index_t n, std::size_t count) {
  std::vector<std::vector<T>> terms;
  std::vector<const T*> from;
  for (std::size_t i = 0; i < count; ++i) {
    terms.push_back(random_matrix<T>(n, 7 + i));
    from.push_back(terms.back().data());
  }
  for (const Isa isa : available_isas()) {
    std::vector<T> sum(static_cast<std::size_t>(n));
    sum_terms<T>(isa, from, n, sum.data());
    for (std::size_t i = 0; i < sum.size(); ++i) {
      float want = 0;  // in the order promised
      for (const auto& t : terms) want += to_float(t[i]);
      if constexpr (std::is_same_v<T, bf16>) want = to_float(to_bf16(want));
      RC_ASSERT(to_float(sum[i]) == want);
    }
  }
}

RC_GTEST_PROP(SumTerms, IsTheSumInOrderRoundedOnce, ()) {
  const auto n = *rc::gen::element<index_t>(1, 15, 16, 100, 32768, 70001);
  const auto count = *rc::gen::inRange<std::size_t>(1, 5);
  check<float>(n, count);
  check<bf16>(n, count);
}

}  // namespace
}  // namespace sinew
