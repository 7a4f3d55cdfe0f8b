#include "text/tokenizer_json.hpp"

#include <gtest/gtest.h>

#include "base/error.hpp"
#include "text/tokenizer_vectors.hpp"

namespace sinew {

using test::data_dir;

TEST(TokenizerJson, Gpt2MatchesTheReferenceIds) {
  SINEW_NEED_DATA();
  const auto tokenizer = load_tokenizer(data_dir() / "tokenizers/gpt2");
  const auto vectors = test::tokenizer_vectors("gpt-2");
  ASSERT_EQ(vectors.size(), 46u);
  for (const auto& v : vectors) {
    EXPECT_EQ(tokenizer->encode(v.text), v.ids) << v.text;
    EXPECT_EQ(tokenizer->decode(v.ids), v.text);
  }
  EXPECT_EQ(tokenizer->vocab_size(), 50257);
  EXPECT_EQ(tokenizer->eos(), 50256);
}

TEST(TokenizerJson, Phi3MatchesTheReferenceIds) {
  SINEW_NEED_DATA();
  const auto tokenizer = load_tokenizer(data_dir() / "tokenizers/phi-3/tokenizer.json");
  const auto vectors = test::tokenizer_vectors("phi-3");
  ASSERT_EQ(vectors.size(), 46u);
  for (const auto& v : vectors) {
    EXPECT_EQ(tokenizer->encode(v.text), v.ids) << v.text;
    EXPECT_EQ(tokenizer->decode(v.ids), v.text);
  }
}

}  // namespace sinew
