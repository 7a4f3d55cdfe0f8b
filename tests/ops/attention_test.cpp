#include "ops/attention.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "ops/gradient_check.hpp"
#include "ops/tensor.hpp"
#include "support/property.hpp"

namespace sinew {
namespace {

using at::Tensor;

// One query at a time.
Tensor loops(const Tensor& q, const Tensor& k, const Tensor& v, double scale, const Tensor& documents) {
  const auto B = q.size(0), H = q.size(1), T = q.size(2), S = k.size(2), group = H / k.size(1);
  auto out = at::zeros({B, H, T, v.size(3)}, q.options());
  for (std::int64_t b = 0; b < B; ++b) {
    for (std::int64_t h = 0; h < H; ++h) {
      for (std::int64_t t = 0; t < T; ++t) {
        const auto at = S - T + t;
        double total = 0;
        auto sum = at::zeros({v.size(3)}, q.options());
        for (std::int64_t s = 0; s <= at; ++s) {
          if (documents.defined() && documents[b][s].item<int>() != documents[b][at].item<int>()) continue;
          const double p = std::exp(scale * q[b][h][t].dot(k[b][h / group][s]).item<double>());
          total += p;
          sum += p * v[b][h / group][s];
        }
        out[b][h][t] = sum / total;
      }
    }
  }
  return out;
}

Tensor documents_of(std::int64_t rows, std::int64_t tokens) {
  auto out = at::zeros({rows, tokens}, at::TensorOptions(at::kInt));
  for (std::int64_t b = 0; b < rows; ++b) {
    for (std::int64_t t = 0; t < tokens; ++t) out[b][t] = static_cast<int>((t + b) / 3);
  }
  return out;
}

PROPERTY(Attention, AgreesWithLoopsOnRandomShapes) {
  const auto B = test::draw<std::int64_t>(1, 3), heads = test::draw<std::int64_t>(1, 3);
  const auto group = test::draw<std::int64_t>(1, 4), T = test::draw<std::int64_t>(1, 7);
  const auto S = T + test::draw<std::int64_t>(0, 4), D = test::draw<std::int64_t>(1, 6);
  const auto q = test::noise({B, heads * group, T, D}, 1), k = test::noise({B, heads, S, D}, 2);
  const auto v = test::noise({B, heads, S, 3}, 3);
  const auto documents = test::draw_bool() ? documents_of(B, S) : Tensor();
  HOLDS(test::max_difference(attention(q, k, v, 0.7, documents), loops(q, k, v, 0.7, documents)) < 1e-12);
}

TEST(Attention, BlocksOfQueriesChangeNothing) {
  // 1100 tokens take three blocks; the last rows computed alone take one.
  const auto q = test::noise({1, 2, 1100, 4}, 1), k = test::noise({1, 1, 1100, 4}, 2),
             v = test::noise({1, 1, 1100, 3}, 3);
  const auto all = attention(q, k, v, 0.5);
  EXPECT_LT(test::max_difference(all.narrow(2, 1000, 100), attention(q.narrow(2, 1000, 100), k, v, 0.5)),
            1e-12);
  EXPECT_LT(test::max_difference(all.narrow(2, 0, 600), attention(q.narrow(2, 0, 600), k.narrow(2, 0, 600),
                                                                  v.narrow(2, 0, 600), 0.5)),
            1e-12);
}

TEST(Attention, Gradients) {
  for (const bool masked : {false, true}) {
    const auto documents = masked ? documents_of(2, 5) : Tensor();
    const auto f = [&](const std::vector<Tensor>& in) {
      return attention(in[0], in[1], in[2], 0.6, documents);
    };
    test::expect_gradients(
        f, {test::noise({2, 4, 5, 3}, 1), test::noise({2, 2, 5, 3}, 2), test::noise({2, 2, 5, 2}, 3)});
  }
}

TEST(Attention, HalfTypesStayCloseToWide) {
  const auto q = test::noise({1, 2, 40, 16}, 1), k = test::noise({1, 2, 40, 16}, 2),
             v = test::noise({1, 2, 40, 8}, 3);
  const auto narrow = attention(q.to(at::kBFloat16), k.to(at::kBFloat16), v.to(at::kBFloat16), 0.25);
  EXPECT_EQ(narrow.scalar_type(), at::kBFloat16);
  EXPECT_LT(test::max_difference(narrow, attention(q, k, v, 0.25)), 0.05);
}

}  // namespace
}  // namespace sinew
