// Attention over a cache against the sums written down plainly, in doubles, for every instruction set and
// format.
#include "kernels/decode_attention.hpp"

#include <gtest/gtest.h>

#include <cstring>

#include "base/float_formats.hpp"
#include "base/index.hpp"
#include "kernels/kernel_support.hpp"
#include "kernels/workspace.hpp"

namespace sinew {
namespace {

// `n` random numbers a row in `format`.
std::vector<std::byte> random_rows(BlockFormat format, index_t rows, index_t n, std::uint64_t seed) {
  const auto values = test::random_matrix<float>(rows * n, seed);
  std::vector<std::byte> out(block_bytes(format, values.size()));
  if (format == BlockFormat::q8_0 || format == BlockFormat::q4_0) {
    const Random random(seed, "codes");
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = static_cast<std::byte>(random.bits(i));
    const std::uint16_t d = float_to_half(format == BlockFormat::q8_0 ? 0.013F : 0.2F);
    for (std::size_t at = 0; at < out.size(); at += block_info(format).bytes) std::memcpy(&out[at], &d, 2);
    return out;
  }
  for (std::size_t i = 0; i < values.size(); ++i) {
    const auto half = float_to_half(values[i]);
    const bf16 narrow = to_bf16(values[i]);
    if (format == BlockFormat::f32) std::memcpy(&out[4 * i], &values[i], 4);
    if (format == BlockFormat::f16) std::memcpy(&out[2 * i], &half, 2);
    if (format == BlockFormat::bf16) std::memcpy(&out[2 * i], &narrow, 2);
  }
  return out;
}

// A cache of `keys` keys, its pages in no order, and `tokens` queries of `group` heads: the last tokens of
// it.
struct Case {
  index_t key, value, group, tokens, keys;
  bool latent;
};

struct Made {
  CacheRows cache;
  std::vector<std::byte> key_bytes, value_bytes;
  std::vector<CachePage> pages;
  std::vector<float> q, key_floats, value_floats;  // floats in the order of the keys

  Made(const Case& c, BlockFormat format) {
    const index_t count = (c.keys + kCachePage - 1) / kCachePage, rows = count * kCachePage;
    cache = {.format = format, .key = c.key, .value = c.value, .latent = c.latent};
    cache.key_bytes = block_bytes(format, size(c.key));
    cache.value_bytes = c.latent ? cache.key_bytes : block_bytes(format, size(c.value));
    key_bytes = random_rows(format, rows, c.key, 1);
    if (!c.latent) value_bytes = random_rows(format, rows, c.value, 2);
    const std::byte* const values = c.latent ? key_bytes.data() : value_bytes.data();
    for (index_t p = 0; p < count; ++p) {
      const std::size_t place = size((p * 7 + 3) % count * kCachePage);
      const index_t at = count % 7 == 0 ? p * kCachePage : static_cast<index_t>(place);
      pages.push_back({key_bytes.data() + size(at) * cache.key_bytes, values + size(at) * cache.value_bytes});
    }
    q = test::random_matrix<float>(c.group * c.tokens * c.key, 3);
    key_floats = floats(c.key, cache.key_bytes, &CachePage::keys);
    value_floats = floats(c.latent ? c.key : c.value, cache.value_bytes, &CachePage::values);
  }

 private:
  std::vector<float> floats(index_t n, std::size_t bytes, const std::byte* CachePage::*part) const {
    std::vector<float> out(pages.size() * size(kCachePage * n));
    for (std::size_t r = 0; r < pages.size() * size(kCachePage); ++r)
      dequantize(cache.format, pages[r / size(kCachePage)].*part + r % size(kCachePage) * bytes,
                 &out[r * size(n)], size(n));
    return out;
  }
};

std::vector<double> plain(const Case& c, const Made& m, double scale) {
  const index_t rows = c.group * c.tokens, width = c.latent ? c.key : c.value;
  std::vector<double> out(size(rows * c.value));
  for (index_t r = 0; r < rows; ++r) {
    const index_t seen = c.keys - c.tokens + r / c.group + 1;
    std::vector<double> p(size(seen));
    double total = 0;
    for (index_t k = 0; k < seen; ++k) {
      double s = 0;
      for (index_t i = 0; i < c.key; ++i)
        s += double{m.q[size(r * c.key + i)]} * m.key_floats[size(k * c.key + i)];
      total += p[size(k)] = std::exp(scale * s);
    }
    for (index_t k = 0; k < seen; ++k)
      for (index_t i = 0; i < c.value; ++i)
        out[size(r * c.value + i)] += p[size(k)] / total * m.value_floats[size(k * width + i)];
  }
  return out;
}

// What the kernels make of queries.
std::byte* prepare(const DecodeKernels& kernels, const CacheRows& cache, double scale,
                   const std::vector<const float*>& q, Workspace::Frame& frame) {
  const auto rows = static_cast<index_t>(q.size());
  auto* const out = frame.take<std::byte>(kernels.query_bytes(cache, rows));
  kernels.prepare(cache, static_cast<float>(scale), rows, q.data(), out);
  return out;
}

// In pieces of `piece` keys.
std::vector<float> attend(const DecodeKernels& kernels, const Case& c, const Made& m, double scale,
                          index_t piece) {
  const index_t rows = c.group * c.tokens, pieces = (c.keys + piece - 1) / piece;
  const index_t wide = decode_rows(rows), columns = decode_columns(c.value);
  std::vector<const float*> q;
  for (index_t r = 0; r < rows; ++r) q.push_back(m.q.data() + r * c.key);
  Workspace::Frame frame(thread_workspace());
  const std::byte* const prepared = prepare(kernels, m.cache, scale, q, frame);
  std::vector<float> top(size(pieces * wide)), sum(top.size()), out(top.size() * size(columns));
  std::vector<std::vector<index_t>> visible(size(pieces));
  std::vector<DecodePiece> list;
  for (index_t i = 0; i < pieces; ++i) {
    const index_t keys = std::min(piece, c.keys - i * piece);
    for (index_t r = 0; r < rows; ++r)
      visible[size(i)].push_back(
          std::clamp<index_t>(c.keys - c.tokens + r / c.group + 1 - i * piece, 0, keys));
    const std::size_t at = size(i * wide);
    list.push_back({rows, prepared, visible[size(i)].data(), m.pages.data() + i * piece / kCachePage, keys,
                    &top[at], &sum[at], &out[at * size(columns)]});
  }
  for (std::size_t i = 0; i < list.size(); ++i)
    kernels.attend(m.cache, list[i], i + 1 < list.size() ? &list[i + 1] : nullptr);
  std::vector<float> y(size(rows * c.value));
  for (index_t r = 0; r < rows; ++r)
    kernels.merge(pieces, &top[size(r)], &sum[size(r)], &out[size(r * columns)], wide, c.value,
                  &y[size(r * c.value)]);
  return y;
}

// |got - want| / |want|
double error_of(const std::vector<float>& got, const std::vector<double>& want) {
  double difference = 0, whole = 0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    difference += (got[i] - want[i]) * (got[i] - want[i]);
    whole += want[i] * want[i];
  }
  return std::sqrt(difference / whole);
}

TEST(DecodeAttention, EveryFormatOnEveryInstructionSet) {
  const Case cases[] = {
      {576, 512, 16, 1, 300, true},  // DeepSeek-V2-Lite, absorbed
      {576, 512, 16, 5, 97, true},   // a draft of four
      {96, 64, 40, 1, 33, true},    {128, 128, 1, 1, 161, false}, {64, 64, 8, 1, 224, false},
      {128, 128, 4, 3, 129, false}, {64, 64, 7, 9, 65, false},    {24, 20, 3, 2, 50, false},
      {24, 16, 2, 4, 70, true},     {128, 96, 128, 1, 40, false}, {64, 64, 8, 1, 1, false},
  };
  for (const BlockFormat format :
       {BlockFormat::f32, BlockFormat::f16, BlockFormat::bf16, BlockFormat::q8_0, BlockFormat::q4_0})
    for (const Case& c : cases) {
      if (c.key % 32 != 0 && block_info(format).elements > 1) continue;
      const Made made(c, format);
      const double scale = 1 / std::sqrt(static_cast<double>(c.key));
      const auto want = plain(c, made, scale);
      for (const Isa isa : available_isas()) {
        const bool narrow = format != BlockFormat::f32 && isa >= Isa::bf16;
        for (const index_t piece : {index_t{64}, index_t{256}, index_t{1024}})
          EXPECT_LT(error_of(attend(decode_kernels(isa, format), c, made, scale, piece), want),
                    narrow ? 4e-3 : 1e-6)
              << isa_name(isa) << " " << block_info(format).name << " key " << c.key << " rows "
              << c.group * c.tokens << " keys " << c.keys << " pieces of " << piece;
      }
    }
}

// Scores of hundreds, as outliers give them, and rows that see nothing of a piece.
TEST(DecodeAttention, LargeScoresAndNothingSeen) {
  const Case c{64, 64, 4, 2, 200, false};
  for (const BlockFormat format : {BlockFormat::f32, BlockFormat::bf16}) {
    Made made(c, format);
    const auto want = plain(c, made, 8.0);
    for (const Isa isa : available_isas()) {
      const auto& kernels = decode_kernels(isa, format);
      const auto got = attend(kernels, c, made, 8.0, 64);
      const bool narrow = format == BlockFormat::bf16 && isa >= Isa::bf16;
      EXPECT_LT(error_of(got, want), narrow ? 0.3 : 1e-4) << isa_name(isa);
      Workspace::Frame frame(thread_workspace());
      const std::byte* const q = prepare(kernels, made.cache, 1, {4, made.q.data()}, frame);
      const std::vector<index_t> none(4, 0);
      const std::size_t wide = size(decode_rows(4));
      std::vector<float> top(2 * wide), sum(2 * wide, 1.0F), out(size(2 * wide * 64)), y(64), alone(64);
      for (const std::size_t at : {std::size_t{0}, wide})
        kernels.attend(made.cache,
                       {4, q, none.data(), made.pages.data(), 64, &top[at], &sum[at], &out[at * 64]},
                       nullptr);
      for (std::size_t r = 0; r < 4; ++r) EXPECT_EQ(sum[r], 0) << isa_name(isa);
      const std::vector<index_t> some(4, 50);
      kernels.attend(made.cache,
                     {4, q, some.data(), made.pages.data(), 64, &top[wide], &sum[wide], &out[wide * 64]},
                     nullptr);
      const auto stride = static_cast<index_t>(wide);
      kernels.merge(2, top.data(), sum.data(), out.data(), stride, 64, y.data());
      kernels.merge(1, &top[wide], &sum[wide], &out[wide * 64], stride, 64, alone.data());
      for (std::size_t i = 0; i < 64; ++i) EXPECT_NEAR(y[i], alone[i], 1e-5);
    }
  }
}

}  // namespace
}  // namespace sinew
