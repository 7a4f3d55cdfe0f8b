#include "kernels/sum.hpp"

#include <gtest/gtest.h>

#include "kernels/kernel_support.hpp"

namespace sinew {
namespace {

template <class T>
std::vector<T> numbers(index_t n, std::size_t seed) {
  std::vector<T> x(static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < x.size(); ++i) {
    const auto value = static_cast<float>((i * 37 + seed * 11) % 97) * 0.0137F - 0.6F;
    if constexpr (std::is_same_v<T, bf16>)
      x[i] = to_bf16(value);
    else
      x[i] = value;
  }
  return x;
}

template <class T>
void check(index_t n, std::size_t count) {
  std::vector<std::vector<T>> terms;
  std::vector<const T*> from;
  for (std::size_t i = 0; i < count; ++i) {
    terms.push_back(numbers<T>(n, 7 + i));
    from.push_back(terms.back().data());
  }
  for (const Isa isa : available_isas()) {
    std::vector<T> sum(static_cast<std::size_t>(n));
    sum_terms<T>(isa, from, n, sum.data());
    std::size_t wrong = 0;
    for (std::size_t i = 0; i < sum.size(); ++i) {
      float want = 0;  // in the order promised
      for (const auto& t : terms) want += to_float(t[i]);
      if constexpr (std::is_same_v<T, bf16>) want = to_float(to_bf16(want));
      wrong += to_float(sum[i]) != want;
    }
    EXPECT_EQ(wrong, 0U) << isa_name(isa) << ", " << count << " terms of " << n;
  }
}

TEST(SumTerms, IsTheSumInOrderRoundedOnce) {
  for (const index_t n : {1, 15, 16, 100, 33000})  // the last in two pieces
    for (std::size_t count = 1; count < 5; ++count) {
      check<float>(n, count);
      check<bf16>(n, count);
    }
}

}  // namespace
}  // namespace sinew
