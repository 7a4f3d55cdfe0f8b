#include "kernels/matmul.hpp"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>

#include "kernels/kernel_support.hpp"
#include "support/property.hpp"

namespace sinew {
namespace {

using test::random_matrix;

// A [m, k] times B [k, n], each stored as it is or transposed.
template <class T>
Matmul<T> plain_product(const std::vector<T>& a, const std::vector<T>& b, index_t m, index_t n, index_t k,
                        bool at, bool bt) {
  return {.m = m,
          .n = n,
          .k = k,
          .a = a.data(),
          .lda = at ? m : k,
          .a_transposed = at,
          .b = b.data(),
          .ldb = bt ? k : n,
          .b_transposed = bt,
          .ldc = n};
}

template <class T>
void check_product(index_t m, index_t n, index_t k, int form, bool narrow, bool accumulate) {
  const bool at = form & 1, bt = form & 2, indexed = at && !bt && (form & 4);
  const index_t source_rows = indexed ? k + 3 : k;
  const auto a = random_matrix<T>((at ? source_rows : m) * (at ? m : k), 1);
  const auto b = random_matrix<T>((bt ? n : source_rows) * (bt ? k : n), 2);
  std::vector<std::int32_t> rows;
  for (index_t i = 0; i < k && indexed; ++i)
    rows.push_back(static_cast<std::int32_t>((i * 7 + 1) % source_rows));
  const auto c0 = random_matrix<T>(m * n, 3);
  const double bound = 1e-6 * static_cast<double>(k + 1) + (narrow ? test::rounding<T>() : 0);
  std::vector<double> want, size;
  for (index_t i = 0; i < m; ++i)
    for (index_t j = 0; j < n; ++j) {
      double sum = accumulate ? to_float(c0[i * n + j]) : 0, magnitude = std::abs(sum);
      for (index_t l = 0; l < k; ++l) {
        const index_t row = indexed ? rows[l] : l;
        const double term = static_cast<double>(to_float(at ? a[row * m + i] : a[i * k + l])) *
                            to_float(bt ? b[j * k + l] : b[row * n + j]);
        sum += term;
        magnitude += std::abs(term);
      }
      want.push_back(sum);
      size.push_back(magnitude);
    }
  for (const Isa isa : available_isas()) {
    std::vector<T> c_narrow = c0;
    std::vector<float> c = test::widened(c0);
    Matmul<T> args = plain_product(a, b, m, n, k, at, bt);
    args.a_rows = args.b_rows = indexed ? rows.data() : nullptr;
    args.accumulate = accumulate;
    (narrow ? void(args.c_narrow = c_narrow.data()) : void(args.c = c.data()));
    matmul(isa, args);
    for (std::size_t i = 0; i < want.size(); ++i) {
      const double got = narrow ? to_float(c_narrow[i]) : c[i];
      HOLDS(std::abs(got - want[i]) <= bound * (size[i] + 1e-3));
    }
  }
}

PROPERTY(Matmul, EqualsTheSumInDoubles) {
  const auto m = test::draw(1, 80), n = test::draw(1, 80), k = test::draw(0, 150);
  const auto form = test::draw(0, 8);
  const auto narrow = test::draw_bool(), accumulate = test::draw_bool();
  check_product<float>(m, n, k, form, narrow, accumulate);
  check_product<bf16>(m, n, k, form, narrow, accumulate);
}

TEST(Matmul, PiecesOfKAndManyTasks) {
  check_product<float>(270, 40, 1030, 1, true, false);
  check_product<bf16>(270, 40, 1030, 1, true, false);
  check_product<bf16>(270, 40, 1030, 2, false, true);
  check_product<bf16>(40, 530, 600, 0, true, false);
}

TEST(Matmul, GivesTheSameBitsOnOneThread) {
  const index_t m = 300, n = 600, k = 1100;
  const auto a = random_matrix<bf16>(m * k, 1), b = random_matrix<bf16>(k * n, 2);
  std::vector<float> many(m * n), one(m * n);
  Matmul<bf16> args{.m = m, .n = n, .k = k, .a = a.data(), .lda = k, .b = b.data(), .ldb = n, .ldc = n};
  args.c = many.data();
  matmul(best_isa(), args);
  args.c = one.data();
  test::on_one_thread([&] { matmul(best_isa(), args); });
  EXPECT_EQ(many, one);
}

// fp32 [m, k] x [k, n] in any form (matmul.hpp), on one instruction set.
std::vector<float> product(Isa isa, const std::vector<float>& a, const std::vector<float>& b, index_t m,
                           index_t n, index_t k, bool at = false, bool bt = false) {
  std::vector<float> c(static_cast<std::size_t>(m * n));
  Matmul<float> args = plain_product(a, b, m, n, k, at, bt);
  args.c = c.data();
  matmul(isa, args);
  return c;
}

// On AMX fp32 is made of bf16 products: none of those that matter may be missing.
PROPERTY(Matmul, RoundsAsFp32DoesOnEveryInstructionSet) {
  const auto m = test::draw<index_t>(1, 40), n = test::draw<index_t>(1, 40), k = test::draw<index_t>(1, 600);
  const double scale = std::exp2(test::draw(-30, 31));
  const bool at = test::draw_bool(), bt = test::draw_bool();
  const auto a = random_matrix<float>(m * k, 4, scale), b = random_matrix<float>(k * n, 5);
  for (const Isa isa : available_isas()) {
    const auto c = product(isa, a, b, m, n, k, at, bt);
    for (index_t i = 0; i < m; ++i)
      for (index_t j = 0; j < n; ++j) {
        double sum = 0, magnitude = 0;
        for (index_t l = 0; l < k; ++l) {
          const double term = static_cast<double>(a[at ? l * m + i : i * k + l]) *
                              static_cast<double>(b[bt ? j * k + l : l * n + j]);
          sum += term;
          magnitude += std::abs(term);
        }
        HOLDS(std::abs(c[i * n + j] - sum) <= 8 * magnitude / (1 << 24));
      }
  }
}

TEST(Matmul, OfTheIdentityGivesEveryBitBack) {
  constexpr index_t n = 48;
  std::vector<float> one(n * n);
  for (index_t i = 0; i < n; ++i) one[i * n + i] = 1;
  const auto a = random_matrix<float>(n * n, 6);
  for (const Isa isa : available_isas()) {
    EXPECT_EQ(product(isa, a, one, n, n, n), a) << isa_name(isa);
    EXPECT_EQ(product(isa, one, a, n, n, n), a) << isa_name(isa);
  }
}

TEST(Matmul, WhatIsNotFiniteStaysSo) {
  constexpr index_t n = 32;
  for (const float bad : {std::bit_cast<float>(0xffffffffU), std::numeric_limits<float>::quiet_NaN(),
                          std::numeric_limits<float>::infinity()})
    for (const Isa isa : available_isas()) {
      auto a = random_matrix<float>(n * n, 7);
      const auto b = random_matrix<float>(n * n, 8);
      a[5 * n + 7] = bad;
      const auto c = product(isa, a, b, n, n, n), d = product(isa, b, a, n, n, n);
      EXPECT_FALSE(std::isfinite(c[5 * n + 3])) << isa_name(isa);
      EXPECT_TRUE(std::isfinite(c[6 * n + 3])) << isa_name(isa);
      EXPECT_FALSE(std::isfinite(d[3 * n + 7])) << isa_name(isa);
    }
}

}  // namespace
}  // namespace sinew
