#include "model/generate.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "base/error.hpp"
#include "base/random.hpp"
#include "base/text.hpp"
#include "model/families.hpp"
#include "ops/tensor.hpp"

namespace sinew {
namespace {

// Ids are bytes; 256 is special.
class ByteTokenizer : public Tokenizer {
 public:
  std::vector<TokenId> encode(std::string_view text, bool, bool) const override {
    std::vector<TokenId> ids;
    for (const char c : text) ids.push_back(static_cast<unsigned char>(c));
    return ids;
  }
  std::string decode(std::span<const TokenId> ids, bool) const override {
    std::string text;
    for (const auto id : ids) text += token_bytes(id);
    return text;
  }
  std::string token_bytes(TokenId id) const override {
    return id < 256 ? std::string(1, static_cast<char>(id)) : "";
  }
  std::string token_text(TokenId id) const override { return token_bytes(id); }
  std::optional<TokenId> token_id(std::string_view) const override { return {}; }
  bool is_special(TokenId id) const override { return id == 256; }
  std::int64_t vocab_size() const override { return 257; }
  std::optional<TokenId> bos() const override { return {}; }
  std::optional<TokenId> eos() const override { return 256; }
  std::string kind() const override { return "bytes"; }
};

TEST(SampleToken, GreedyTakesTheFirstOfEquals) {
  const std::vector<float> logits{1, 3, 3, 2};
  EXPECT_EQ(sample_token(logits, {}, 0.99), 1);
}

TEST(SampleToken, FollowsTheProbabilities) {
  const std::vector<float> logits{0, 1, 2, -1};
  const SamplingOptions options{.temperature = 2};
  double total = 0;
  for (const float x : logits) total += std::exp(x / 2);
  std::map<std::int64_t, double> share;
  constexpr int kDraws = 40000;
  for (int i = 0; i < kDraws; ++i) share[sample_token(logits, options, (i + 0.5) / kDraws)] += 1.0 / kDraws;
  for (std::size_t i = 0; i < logits.size(); ++i)
    EXPECT_NEAR(share[static_cast<std::int64_t>(i)], std::exp(logits[i] / 2) / total, 1e-3);
}

TEST(SampleToken, TopKAndTopPCutTheTail) {
  const std::vector<float> logits{std::log(0.1F), std::log(0.5F), std::log(0.15F), std::log(0.25F)};
  const auto seen = [&](const SamplingOptions& options) {
    std::map<std::int64_t, int> out;
    for (int i = 0; i < 1000; ++i) ++out[sample_token(logits, options, (i + 0.5) / 1000)];
    return out;
  };
  const auto two = seen({.temperature = 1, .top_k = 2});
  EXPECT_EQ(two.size(), 2U);
  EXPECT_NEAR(two.at(1), 667, 1);
  EXPECT_EQ(seen({.temperature = 1, .top_p = 0.6}).size(), 2U);  // 0.5 is not enough, 0.75 is
  EXPECT_EQ(seen({.temperature = 1, .top_p = 0.4}).size(), 1U);
  EXPECT_EQ(seen({.temperature = 1, .top_p = 1}).size(), 4U);
}

TEST(SampleToken, OptionsThatMakeNoSense) {
  EXPECT_THROW(check_sampling({.temperature = -1}), UserError);
  EXPECT_THROW(check_sampling({.temperature = NAN}), UserError);
  EXPECT_THROW(check_sampling({.top_k = -1}), UserError);
  EXPECT_THROW(check_sampling({.top_p = 0}), UserError);
  EXPECT_THROW(check_sampling({.top_p = 1.5}), UserError);
}

TEST(Generate, SameWithAndWithoutCacheAndForTheSameSeed) {
  for (const char* family : {"llama", "deepseek_v2"}) {
    const auto model = test::random_model(test::tiny_model(family), at::kFloat);
    const std::vector<TokenId> prompt{1, 2, 3};
    GenerateOptions options{.sampling = {.temperature = 1, .seed = 5}, .max_tokens = 20};
    const auto first = generate(*model, prompt, options, {}, at::kCPU);
    EXPECT_EQ(first.tokens.size(), 20U);
    EXPECT_EQ(first.finish, Finish::length);
    EXPECT_EQ(generate(*model, prompt, options, {}, at::kCPU).tokens, first.tokens);
    options.cache = false;
    EXPECT_EQ(generate(*model, prompt, options, {}, at::kCPU).tokens, first.tokens);
    options.sampling.seed = 6;
    EXPECT_NE(generate(*model, prompt, options, {}, at::kCPU).tokens, first.tokens);
  }
}

TEST(Generate, EndsAtEndTokensFullContextAndWhenTold) {
  const auto model = test::random_model(test::tiny_llama(), at::kFloat);
  const GenerateOptions options{.sampling = {.temperature = 1}, .max_tokens = 1000};
  const auto all = generate(*model, {1}, options, {}, at::kCPU);
  EXPECT_EQ(all.tokens.size(), 64U);  // positions 0..63 each predict one more token
  EXPECT_EQ(all.finish, Finish::context_full);
  const std::vector<std::int64_t> ends{all.tokens[9]};
  const auto ended = generate(*model, {1}, options, ends, at::kCPU);
  EXPECT_EQ(ended.finish, Finish::end_token);
  EXPECT_LE(ended.tokens.size(), 9U);
  int heard = 0;
  const auto stopped = generate(*model, {1}, options, {}, at::kCPU, [&](TokenId) { return ++heard < 4; });
  EXPECT_EQ(stopped.finish, Finish::stopped);
  EXPECT_EQ(stopped.tokens.size(), 4U);
  EXPECT_THROW(generate(*model, {}, options, {}, at::kCPU), UserError);
  EXPECT_THROW(generate(*model, std::vector<TokenId>(65, 1), options, {}, at::kCPU), UserError);
}

TEST(TextStream, GivesWholeCharactersAsTheyCome) {
  const ByteTokenizer tokenizer;
  TextStream stream(tokenizer);
  const std::string text = "a\xC3\xA4\xE2\x82\xAC\xF0\x9F\x98\x80z";
  std::string out;
  for (const char c : text) {
    out += stream.push(static_cast<unsigned char>(c));
    EXPECT_TRUE(valid_utf8(out));
    EXPECT_EQ(text.substr(0, out.size()), out);
  }
  EXPECT_EQ(out + stream.finish(), text);
}

TEST(TextStream, NeverGivesInvalidUtf8) {
  const ByteTokenizer tokenizer;
  for (std::uint64_t seed = 0; seed < 300; ++seed) {
    TextStream stream(tokenizer);
    const Random random(seed, "bytes");
    std::string out;
    for (std::uint64_t i = 0; i < 12; ++i) {
      const auto choice = random.below(2 * i, 4);
      out += stream.push(static_cast<TokenId>(choice == 0 ? random.below(2 * i + 1, 128)
                                                          : 128 + random.below(2 * i + 1, 128)));
      ASSERT_TRUE(valid_utf8(out));
    }
    out += stream.finish();
    ASSERT_TRUE(valid_utf8(out));
  }
}

TEST(PromptTokens, NeverNoneAndInsideTheVocabulary) {
  const ByteTokenizer tokenizer;
  auto config = test::tiny_llama();
  EXPECT_THROW(prompt_tokens(tokenizer, "", config), UserError);
  EXPECT_THROW(prompt_tokens(tokenizer, "z", config), UserError);  // 122, vocabulary 61
  config.bos_token_ids = {7};
  EXPECT_EQ(prompt_tokens(tokenizer, "", config), (std::vector<TokenId>{7}));
  EXPECT_EQ(prompt_tokens(tokenizer, "\x01", config), (std::vector<TokenId>{1}));
}

}  // namespace
}  // namespace sinew
