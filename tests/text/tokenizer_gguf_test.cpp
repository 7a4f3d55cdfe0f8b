#include "text/tokenizer_gguf.hpp"

#include <gtest/gtest.h>

#include <algorithm>

#include "base/error.hpp"
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
