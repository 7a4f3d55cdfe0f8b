#include "quant/gptq.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "base/random.hpp"
#include "quant/cholesky.hpp"
#include "quant/quantize_rows.hpp"
#include "support/property.hpp"

namespace sinew {
namespace {

std::vector<float> normal(std::uint64_t seed, std::size_t count, float deviation = 1) {
  std::vector<float> x(count);
  Random(seed, 0).fill_normal(x.data(), 0, count, 0, deviation);
  return x;
}

// Rows of activations that hang together: a few directions carry most of them.
std::vector<float> activations(std::uint64_t seed, std::int64_t tokens, std::int64_t cols) {
  constexpr std::int64_t kDirections = 8;
  const auto basis = normal(seed, static_cast<std::size_t>(kDirections * cols));
  const auto part = normal(seed + 1, static_cast<std::size_t>(kDirections * tokens));
  auto x = normal(seed + 2, static_cast<std::size_t>(tokens * cols), 0.3F);
  for (std::int64_t t = 0; t < tokens; ++t)
    for (std::int64_t d = 0; d < kDirections; ++d)
      for (std::int64_t c = 0; c < cols; ++c)
        x[static_cast<std::size_t>(t * cols + c)] += part[static_cast<std::size_t>(t * kDirections + d)] *
                                                     basis[static_cast<std::size_t>(d * cols + c)];
  return x;
}

Hessian hessian_of(const std::vector<float>& x, std::int64_t cols) {
  Hessian h(cols);
  h.add(x.data(), cols, static_cast<std::int64_t>(x.size()) / cols);
  return h;
}

std::vector<float> unpacked(BlockFormat format, const std::vector<std::byte>& bytes, std::size_t count) {
  std::vector<float> out(count);
  dequantize(format, bytes.data(), out.data(), count);
  return out;
}

// mean over tokens of |x (w - q)^T|^2, straight from the definition.
double output_loss(const std::vector<float>& x, const std::vector<float>& w, const std::vector<float>& q,
                   std::int64_t cols, double damping) {
  const std::int64_t tokens = static_cast<std::int64_t>(x.size()) / cols,
                     rows = static_cast<std::int64_t>(w.size()) / cols;
  double sum = 0, trace = 0, squares = 0;
  for (const float value : x) trace += static_cast<double>(value) * value / static_cast<double>(tokens);
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t t = 0; t < tokens; ++t) {
      double y = 0;
      for (std::int64_t c = 0; c < cols; ++c)
        y += x[static_cast<std::size_t>(t * cols + c)] *
             (static_cast<double>(w[static_cast<std::size_t>(r * cols + c)]) -
              q[static_cast<std::size_t>(r * cols + c)]);
      sum += y * y / static_cast<double>(tokens);
    }
    for (std::int64_t c = 0; c < cols; ++c) {
      const double e = static_cast<double>(w[static_cast<std::size_t>(r * cols + c)]) -
                       q[static_cast<std::size_t>(r * cols + c)];
      squares += e * e;
    }
  }
  return sum + damping * trace / static_cast<double>(cols) * squares;
}

TEST(Cholesky, GivesBackTheMatrix) {
  for (const std::int64_t n : {32, 64, 160}) {
    const auto x = normal(3, static_cast<std::size_t>(2 * n * n));
    const Hessian h = hessian_of(x, n);
    std::vector<float> l(h.sums(0), h.sums(0) + n * n);
    ASSERT_TRUE(cholesky(l.data(), n));
    for (std::int64_t i = 0; i < n; ++i)
      for (std::int64_t j = 0; j <= i; ++j) {
        double sum = 0;
        for (std::int64_t k = 0; k <= j; ++k)
          sum += static_cast<double>(l[static_cast<std::size_t>(i * n + k)]) *
                 l[static_cast<std::size_t>(j * n + k)];
        EXPECT_NEAR(sum, h.sums(0)[i * n + j], 1e-3 * static_cast<double>(n)) << i << " " << j;
      }
  }
}

TEST(Cholesky, RefusesWhatIsNotPositive) {
  std::vector<float> a(32 * 32, 0.F);
  for (std::size_t i = 0; i < 32; ++i) a[i * 33] = i == 20 ? -1.F : 1.F;
  EXPECT_FALSE(cholesky(a.data(), 32));
}

TEST(Hessian, CountsTokensAndMixesPriors) {
  const std::vector<float> x{1, 2, 3, 4};
  Hessian h(2), prior(2);
  h.add(x.data(), 2, 2);
  EXPECT_EQ(h.tokens(), 2);
  EXPECT_EQ(h.sums(0)[0], 1 + 9);
  EXPECT_EQ(h.sums(0)[1], 2 + 12);
  EXPECT_EQ(h.sums(0)[3], 4 + 16);
  EXPECT_THAT(h.moments(), testing::ElementsAre(5.F, 10.F));
  prior.add(x.data(), 2, 1);  // averages 1, 2, 4
  h.mix(prior, 6);
  EXPECT_EQ(h.tokens(), 8);
  EXPECT_EQ(h.sums(0)[0], 16);
  EXPECT_EQ(h.sums(0)[1], 26);
  Hessian unseen(2);
  EXPECT_THAT(unseen.moments(), testing::ElementsAre(1.F, 1.F));
  unseen.mix(prior, 4);
  EXPECT_THAT(unseen.moments(), testing::ElementsAre(1.F, 4.F));
}

TEST(Hessian, WideMatricesAreCutIntoPieces) {
  EXPECT_EQ(column_pieces(4096).size(), 1U);
  for (const std::int64_t cols : {4352, 7168, 18432, 14336}) {
    std::int64_t at = 0;
    for (const ColumnPiece& piece : column_pieces(cols)) {
      EXPECT_EQ(piece.first, at);
      EXPECT_EQ(piece.count % 256, 0);
      EXPECT_LE(piece.count, kHessianSpan);
      at += piece.count;
    }
    EXPECT_EQ(at, cols);
  }
}

// The loss that gptq_rows reports is that of the layer's output, and GPTQ's is the smaller one.
TEST(Gptq, LossesAreThoseOfTheOutputAndBelowRoundings) {
  constexpr std::int64_t kCols = 256, kRows = 40, kTokens = 300;
  const auto x = activations(1, kTokens, kCols), w = normal(9, kRows * kCols, 0.05F);
  const Hessian h = hessian_of(x, kCols);
  const GptqFactor factor = gptq_factor(h);
  const auto importance = h.moments();
  for (const BlockInfo& info : block_formats()) {
    if (info.elements == 1) continue;
    std::vector<std::byte> bytes(kRows * block_bytes(info.format, kCols)), rounded(bytes.size());
    const GptqLoss loss = gptq_rows(info.format, w.data(), kRows, factor, importance.data(), bytes.data());
    quantize_rows(info.format, w.data(), kRows, kCols, importance.data(), rounded.data());
    const auto q = unpacked(info.format, bytes, w.size()), plain = unpacked(info.format, rounded, w.size());
    const double direct = output_loss(x, w, q, kCols, kGptqDamping);
    EXPECT_NEAR(loss.loss, direct, 2e-3 * direct) << info.name;
    EXPECT_NEAR(loss.rounding, output_loss(x, w, plain, kCols, kGptqDamping), 2e-3 * loss.rounding)
        << info.name;
    EXPECT_NEAR(hessian_loss(factor, w.data(), q.data(), kRows), direct, 2e-3 * direct) << info.name;
    EXPECT_LT(loss.loss, 0.6 * loss.rounding) << info.name;
  }
}

TEST(Gptq, WithoutCorrelationsItIsRounding) {
  constexpr std::int64_t kCols = 256, kRows = 8;
  const auto w = normal(4, kRows * kCols);
  const Hessian none(kCols);
  const std::vector<float> ones(kCols, 1.F);
  for (const BlockFormat format : {BlockFormat::q4_k, BlockFormat::q8_0, BlockFormat::iq4_xs}) {
    std::vector<std::byte> bytes(kRows * block_bytes(format, kCols)), rounded(bytes.size());
    gptq_rows(format, w.data(), kRows, gptq_factor(none), ones.data(), bytes.data());
    quantize_rows(format, w.data(), kRows, kCols, ones.data(), rounded.data());
    EXPECT_EQ(bytes, rounded) << block_info(format).name;
  }
}

// Two columns that always agree are one: the second takes up what the first lost. Brute force over the levels
// of Q8_0 beside the one scale shows that no choice is much better.
TEST(Gptq, NearTheBestOfAllLevelsOnPairs) {
  constexpr std::int64_t kCols = 32;
  std::vector<float> x(kCols * 64);
  for (std::size_t t = 0; t < 64; ++t)
    for (std::size_t c = 0; c < 32; ++c) x[t * 32 + c] = c / 2 == t % 16 ? 1.F : 0.F;
  const auto w = normal(8, kCols);
  const GptqFactor factor = gptq_factor(hessian_of(x, kCols));
  const std::vector<float> ones(kCols, 1.F);
  std::vector<std::byte> bytes(block_bytes(BlockFormat::q4_0, kCols));
  const GptqLoss loss = gptq_rows(BlockFormat::q4_0, w.data(), 1, factor, ones.data(), bytes.data());
  const auto q = unpacked(BlockFormat::q4_0, bytes, kCols);
  std::vector<float> best(kCols);
  float step = 0;
  for (std::size_t c = 0; c < kCols; ++c)
    if (q[c] != 0 && (step == 0 || std::abs(q[c]) < step)) step = std::abs(q[c]);
  for (std::size_t c = 0; c < kCols; c += 2) {  // pairs do not touch one another
    double least = 1e30;
    for (int a = -8; a <= 8; ++a)
      for (int b = -8; b <= 8; ++b) {
        const double ea = w[c] - step * static_cast<float>(a), eb = w[c + 1] - step * static_cast<float>(b);
        const double value = (ea + eb) * (ea + eb) + kGptqDamping * (ea * ea + eb * eb);
        if (value >= least) continue;
        least = value;
        best[c] = step * static_cast<float>(a);
        best[c + 1] = step * static_cast<float>(b);
      }
  }
  const double bound = hessian_loss(factor, w.data(), best.data(), 1);
  EXPECT_GE(loss.loss, 0.99 * bound);
  EXPECT_LE(loss.loss, 3 * bound);
  EXPECT_LT(loss.loss, 0.5 * loss.rounding);
}

PROPERTY(Gptq, NeverAboveRoundingWhateverTheInstance) {
  const auto seed = test::draw<std::uint64_t>(0, 1 << 20);
  const auto tokens = test::draw<std::int64_t>(1, 80);
  const auto rows = test::draw<std::int64_t>(1, 40);
  const auto format =
      test::draw_of({BlockFormat::q2_k, BlockFormat::q3_k, BlockFormat::q4_k, BlockFormat::q5_0,
                     BlockFormat::q4_1, BlockFormat::iq4_nl, BlockFormat::q6_k});
  constexpr std::int64_t kCols = 256;
  const auto x = activations(seed, tokens, kCols),
             w = normal(seed + 7, static_cast<std::size_t>(rows * kCols));
  const Hessian h = hessian_of(x, kCols);
  const GptqFactor factor = gptq_factor(h);
  const auto importance = h.moments();
  std::vector<std::byte> bytes(static_cast<std::size_t>(rows) * block_bytes(format, kCols)),
      again(bytes.size());
  const GptqLoss loss = gptq_rows(format, w.data(), rows, factor, importance.data(), bytes.data());
  HOLDS(std::isfinite(loss.loss) && loss.loss >= 0);
  HOLDS(loss.loss <= loss.rounding);
  // Rows do not know one another.
  gptq_rows(format, w.data() + (rows - 1) * kCols, 1, factor, importance.data(), again.data());
  const std::size_t row = block_bytes(format, kCols);
  HOLDS(std::equal(again.begin(), again.begin() + static_cast<std::ptrdiff_t>(row),
                   bytes.end() - static_cast<std::ptrdiff_t>(row)));
}

}  // namespace
}  // namespace sinew
