#include "text/tokenizer_gguf.hpp"

#include <gtest/gtest.h>

#include <algorithm>

#include "base/error.hpp"
#include "storage/gguf_writer.hpp"
#include "support/tiny_run.hpp"
#include "text/gguf_pre_tokenizers.hpp"
#include "text/tokenizer_vectors.hpp"

namespace sinew {

class TokenizerGguf : public testing::TestWithParam<const char*> {};

TEST_P(TokenizerGguf, MatchesTheReferenceIds) {
  SINEW_NEED_DATA();
  const std::string name = GetParam();
  const auto tokenizer =
      load_tokenizer(test::data_dir() / "tokenizers/llama.cpp" / ("ggml-vocab-" + name + ".gguf"));
  const auto vectors = test::tokenizer_vectors(name);
  ASSERT_EQ(vectors.size(), 46u);
  for (const auto& v : vectors) {
    EXPECT_EQ(tokenizer->encode(v.text), v.ids) << v.text;
    EXPECT_EQ(tokenizer->decode(v.ids), v.text);
  }
}

INSTANTIATE_TEST_SUITE_P(Files, TokenizerGguf, testing::Values("deepseek-llm", "gpt-2", "llama-spm", "phi-3"),
                         [](const auto& test_case) {
                           std::string name = test_case.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST(TokenizerGgufFlags, BosFollowsTheFile) {
  SINEW_NEED_DATA();
  const auto folder = test::data_dir() / "tokenizers/llama.cpp";
  const auto llama = load_tokenizer(folder / "ggml-vocab-llama-spm.gguf");
  EXPECT_EQ(llama->encode("Hello", true).front(), llama->bos());
  EXPECT_TRUE(llama->is_special(*llama->bos()));
  EXPECT_EQ(llama->token_id("</s>"), llama->eos());
}

// Without merges: every byte a token of its own.
TEST(TokenizerGgufFlags, ByteLevelWithoutMerges) {
  const test::TempDir dir;
  std::vector<std::string> tokens;
  for (int byte = 0; byte < 256; ++byte) tokens.push_back(test::byte_symbol(byte));
  for (const bool empty_list : {false, true}) {
    GgufMetadata metadata;
    metadata.set_string("general.architecture", "llama");
    metadata.set_string("tokenizer.ggml.model", "gpt2");
    metadata.set_strings("tokenizer.ggml.tokens", tokens);
    if (empty_list) metadata.set_strings("tokenizer.ggml.merges", {});
    GgufWriter(dir / "m.gguf", metadata, {}).commit();
    const auto tokenizer = load_tokenizer(dir / "m.gguf");
    const std::string text = "na\xC3\xAFve  text\n";
    const auto ids = tokenizer->encode(text);
    EXPECT_EQ(ids.size(), text.size());
    EXPECT_EQ(tokenizer->decode(ids), text);
  }
}

// SentencePiece: scores instead of merges.
TEST(TokenizerGgufFlags, ScoresInsteadOfMerges) {
  const test::TempDir dir;
  GgufMetadata metadata;
  metadata.set_string("general.architecture", "llama");
  metadata.set_string("tokenizer.ggml.model", "llama");
  const std::vector<std::string> tokens{"<unk>",
                                        "<s>",
                                        "</s>",
                                        "\xE2\x96\x81",
                                        "a",
                                        "b",
                                        "ab",
                                        "\xE2\x96\x81"
                                        "ab"};
  const std::vector<float> scores{0, 0, 0, -4, -5, -6, -1, -2};
  const std::vector<std::int32_t> types{2, 3, 3, 1, 1, 1, 1, 1};
  metadata.set_strings("tokenizer.ggml.tokens", tokens);
  metadata.set_f32s("tokenizer.ggml.scores", scores);
  metadata.set_i32s("tokenizer.ggml.token_type", types);
  GgufWriter(dir / "m.gguf", metadata, {}).commit();
  const auto tokenizer = load_tokenizer(dir / "m.gguf");
  EXPECT_EQ(tokenizer->encode("ab abba", true), (std::vector<TokenId>{1, 7, 7, 5, 4}));
  EXPECT_EQ(tokenizer->decode(std::vector<TokenId>{7, 7, 5, 4}), "ab abba");
}

TEST(GgufPreTokenizer, UnknownNamesAreRefusedWithTheNearest) {
  EXPECT_NO_THROW(gguf_pre_tokenizer("deepseek-v3", "x"));
  try {
    gguf_pre_tokenizer("qwen-2", "x.gguf");
    FAIL();
  } catch (const UserError& error) {
    EXPECT_NE(std::string(error.what()).find("qwen2"), std::string::npos);
  }
}

}  // namespace sinew
