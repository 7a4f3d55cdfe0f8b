#include "kernels/quant_matmul.hpp"

#include <gtest/gtest.h>

#include "kernels/quant_experts.hpp"
#include "kernels/quant_support.hpp"

namespace sinew {
namespace {

struct TestMatrix {
  PackedMatrix packed;
  std::vector<float> values;
  test::Aligned<std::byte> memory;
};

TestMatrix make(BlockFormat format, index_t rows, index_t cols, std::uint64_t seed) {
  const auto blocks = test::random_blocks(format, rows, cols, seed);
  TestMatrix m{{format, rows, cols, nullptr},
               test::dequantized(format, blocks, rows * cols),
               test::Aligned<std::byte>(static_cast<index_t>(packed_bytes(format, rows, cols)))};
  pack_tiles(format, blocks.data(), rows, cols, 0, (rows + 15) / 16, m.memory.data());
  m.packed.data = m.memory.data();
  return m;
}

// x W^T in doubles.
std::vector<double> product(const std::vector<double>& x, index_t tokens, const TestMatrix& w) {
  const index_t rows = w.packed.rows, cols = w.packed.cols;
  std::vector<double> y(static_cast<std::size_t>(tokens * rows));
  for (index_t t = 0; t < tokens; ++t)
    for (index_t r = 0; r < rows; ++r)
      for (index_t i = 0; i < cols; ++i)
        y[static_cast<std::size_t>(t * rows + r)] +=
            x[static_cast<std::size_t>(t * cols + i)] *
            static_cast<double>(w.values[static_cast<std::size_t>(r * cols + i)]);
  return y;
}

std::vector<Isa> product_isas() {
  std::vector<Isa> list;
  for (const Isa isa : available_isas())
    if (quant_kernels(isa) != nullptr && isa != Isa::avx512 && isa != Isa::bf16) list.push_back(isa);
  return list;
}

// What 8 bits for the largest number of a span leave of random numbers: about one percent.
constexpr double kActivations = 0.012;

}  // namespace

TEST(QuantMatmul, AnyNumberOfTokensAgainstDoubles) {
  const index_t cols = 768, rows = 72;
  for (const BlockFormat format :
       {BlockFormat::q4_k, BlockFormat::q6_k, BlockFormat::q8_0, BlockFormat::q5_0}) {
    const TestMatrix a = make(format, rows, cols, 1), b = make(BlockFormat::q4_k, 33, cols, 2);
    std::vector<float> bias(33);
    for (std::size_t i = 0; i < bias.size(); ++i) bias[i] = static_cast<float>(i);
    for (const index_t tokens : {1, 3, 6, 9, 16, 33, 150}) {
      const auto x = test::random_matrix<float>(tokens * cols, 3);
      const std::vector<double> wide(x.begin(), x.end());
      const auto want_a = product(wide, tokens, a);
      auto want_b = product(wide, tokens, b);
      for (std::size_t i = 0; i < want_b.size(); ++i) want_b[i] += static_cast<double>(bias[i % 33]);
      for (const Isa isa : product_isas()) {
        std::vector<float> ya(static_cast<std::size_t>(tokens * rows)),
            yb(static_cast<std::size_t>(tokens * 33));
        const QuantProduct products[] = {{&a.packed, ya.data(), rows, nullptr},
                                         {&b.packed, yb.data(), 33, bias.data()}};
        quant_matmul(isa, x.data(), cols, tokens, cols, products);
        const double limit = tokens <= kFewTokens ? kActivations : 1.5 * kActivations;
        EXPECT_LT(test::relative_error(ya, want_a), limit)
            << block_info(format).name << " " << tokens << isa_name(isa);
        EXPECT_LT(test::relative_error(yb, want_b), limit) << tokens << isa_name(isa);
      }
    }
  }
}

// Threads take from each other's ends: every row of every product once, whatever the sizes.
TEST(QuantMatmul, ManySmallProductsOfFewTokens) {
  const index_t cols = 256;
  std::vector<TestMatrix> matrices;
  for (std::uint64_t i = 0; i < 12; ++i)
    matrices.push_back(make(i % 2 == 0 ? BlockFormat::q4_k : BlockFormat::q8_0,
                            static_cast<index_t>(1 + 37 * i), cols, 40 + i));
  const auto x = test::random_matrix<float>(3 * cols, 6);
  for (const index_t tokens : {1, 3}) {
    std::vector<std::vector<float>> y;
    std::vector<QuantProduct> products;
    for (const TestMatrix& m : matrices)
      y.emplace_back(static_cast<std::size_t>(tokens * m.packed.rows), -1.0F);
    for (std::size_t i = 0; i < matrices.size(); ++i)
      products.push_back({&matrices[i].packed, y[i].data(), matrices[i].packed.rows, nullptr});
    quant_matmul(best_isa(), x.data(), cols, tokens, cols, products);
    for (std::size_t i = 0; i < matrices.size(); ++i)
      EXPECT_LT(test::relative_error(y[i], product({x.begin(), x.end()}, tokens, matrices[i])), kActivations)
          << i << " " << tokens;
  }
}

TEST(QuantMatmul, SameOnOneThreadAndMany) {
  const index_t cols = 512, rows = 96;
  const TestMatrix w = make(BlockFormat::q4_k, rows, cols, 4);
  for (const index_t tokens : {2, 40}) {
    const auto x = test::random_matrix<float>(tokens * cols, 5);
    std::vector<float> many(static_cast<std::size_t>(tokens * rows)), one = many;
    const QuantProduct to_many{&w.packed, many.data(), rows, nullptr},
        to_one{&w.packed, one.data(), rows, nullptr};
    quant_matmul(best_isa(), x.data(), cols, tokens, cols, {&to_many, 1});
    test::on_one_thread([&] { quant_matmul(best_isa(), x.data(), cols, tokens, cols, {&to_one, 1}); });
    EXPECT_EQ(many, one);
  }
}

struct Sizes {
  index_t hidden, narrow, wide;
  std::vector<index_t> tokens;
};
void PrintTo(const Sizes& s, std::ostream* out) { *out << s.hidden << " " << s.narrow << " " << s.wide; }

class QuantExperts : public testing::TestWithParam<Sizes> {};

// One span and several, whole and not; up to 3 groups of 16 tokens and more, and more than one lot; with 16
// tokens some networks have few rows and one has many.
INSTANTIATE_TEST_SUITE_P(Sizes, QuantExperts,
                         testing::Values(Sizes{256, 96, 160, {1, 7, 16, 50}},
                                         Sizes{512, 288, 320, {70, 130}}));

TEST_P(QuantExperts, NetworksOfOneAndManyRowsAgainstDoubles) {
  const auto& [hidden, narrow, wide, all_tokens] = GetParam();
  struct Weights {
    TestMatrix gate, up, down;
    PackedSwiglu packed() const { return {gate.packed, up.packed, down.packed}; }
  };
  std::vector<Weights> weights;
  for (std::uint64_t e = 0; e < 4; ++e) {
    const index_t width = e == 3 ? wide : narrow;
    weights.push_back({make(BlockFormat::q4_k, width, hidden, 10 + e),
                       make(BlockFormat::q4_k, width, hidden, 20 + e),
                       make(BlockFormat::q5_0, hidden, width, 30 + e)});
  }
  for (const index_t tokens : all_tokens) {
    auto x = test::random_matrix<float>(tokens * hidden, 6, 0.05);
    // Expert 0 has no rows; 1 every third token; 2 every other; 3, the shared one, all.
    std::vector<std::int32_t> chosen[3];
    std::vector<float> factor[3];
    for (std::int32_t t = 0; t < tokens; ++t) {
      if (t % 3 == 0) chosen[1].push_back(t);
      if (t % 2 == 0) chosen[2].push_back(t);
    }
    for (std::size_t e = 0; e < 3; ++e)
      for (const std::int32_t t : chosen[e]) factor[e].push_back(0.25F + 0.01F * static_cast<float>(t));
    std::vector<double> want(static_cast<std::size_t>(tokens * hidden), 0.5);
    for (std::size_t e = 0; e < 4; ++e) {
      const std::vector<double> all(x.begin(), x.end());
      const auto gate = product(all, tokens, weights[e].gate), up = product(all, tokens, weights[e].up);
      std::vector<double> act(gate.size());
      for (std::size_t i = 0; i < act.size(); ++i) act[i] = gate[i] / (1 + std::exp(-gate[i])) * up[i];
      const auto y = product(act, tokens, weights[e].down);
      const auto add = [&](index_t t, double f) {
        for (index_t i = 0; i < hidden; ++i)
          want[static_cast<std::size_t>(t * hidden + i)] += f * y[static_cast<std::size_t>(t * hidden + i)];
      };
      if (e == 3)
        for (index_t t = 0; t < tokens; ++t) add(t, 1);
      else
        for (std::size_t i = 0; i < chosen[e].size(); ++i)
          add(chosen[e][i], static_cast<double>(factor[e][i]));
    }
    std::vector<PackedSwiglu> packed;
    for (const Weights& w : weights) packed.push_back(w.packed());
    std::vector<QuantExpertWork> work;
    for (std::size_t e = 0; e < 3; ++e)
      work.push_back(
          {&packed[e], chosen[e].data(), factor[e].data(), static_cast<index_t>(chosen[e].size())});
    work.push_back({&packed[3], nullptr, nullptr, tokens});
    for (const Isa isa : product_isas()) {
      std::vector<float> y(static_cast<std::size_t>(tokens * hidden), 0.5F), one = y;
      quant_experts(isa, x.data(), hidden, tokens, work, y.data(), hidden);
      EXPECT_LT(test::relative_error(y, want), 4 * kActivations) << tokens << isa_name(isa);
      test::on_one_thread([&] { quant_experts(isa, x.data(), hidden, tokens, work, one.data(), hidden); });
      EXPECT_EQ(y, one);
    }
  }
}

}  // namespace sinew
