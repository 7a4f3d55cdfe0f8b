// Text given out token by token is the text decoded at once, and no token costs more for those before it.
#include "text/text_stream.hpp"

#include <gtest/gtest.h>

#include "base/random.hpp"
#include "text/byte_tokenizer.hpp"
#include "text/tokenizer_vectors.hpp"

namespace sinew {
namespace {

std::string streamed(const Tokenizer& tokenizer, const std::vector<TokenId>& ids) {
  TextStream stream(tokenizer);
  std::string out;
  for (const TokenId id : ids) out += stream.push(id);
  return out + stream.finish();
}

TEST(TextStream, TheWholeTextOfEveryTokenizer) {
  SINEW_NEED_DATA();
  const auto folder = test::data_dir() / "tokenizers";
  const std::string text = test::slurp(test::data_dir() / "text/tinyshakespeare.txt").substr(0, 20000) +
                           "\xF0\x9F\x98\x80\xF0\x9F\x91\x8D \xE4\xBD\xA0\xE5\xA5\xBD  end";
  for (const char* name : {"gpt2/tokenizer.json", "phi-3/tokenizer.json", "llama2/tokenizer.model",
                           "llama.cpp/ggml-vocab-llama-spm.gguf", "llama.cpp/ggml-vocab-deepseek-llm.gguf"}) {
    const auto tokenizer = load_tokenizer(folder / name);
    const auto ids = tokenizer->encode(text, true);
    ASSERT_GT(ids.size(), 3000U);
    EXPECT_EQ(streamed(*tokenizer, ids), tokenizer->decode(ids, true)) << name;
  }
}

TEST(TextStream, AnyTokensInAnyOrder) {
  SINEW_NEED_DATA();
  for (const char* name : {"gpt2/tokenizer.json", "phi-3/tokenizer.json", "llama2/tokenizer.model"}) {
    const auto tokenizer = load_tokenizer(test::data_dir() / "tokenizers" / name);
    for (std::uint64_t seed = 0; seed < 20; ++seed) {
      const Random random(seed, "tokens");
      std::vector<TokenId> ids;
      for (std::uint64_t i = 0; i < 200; ++i) {  // long stretches of special tokens among them
        const bool special = random.below(3 * i / 90, 2) == 0 && i % 90 < 60 && tokenizer->eos();
        ids.push_back(special ? *tokenizer->eos()
                              : static_cast<TokenId>(random.below(
                                    1000 + i, static_cast<std::uint64_t>(tokenizer->vocab_size()))));
      }
      const std::string whole = tokenizer->decode(ids, true);
      TextStream at_once(*tokenizer);
      std::string out;
      for (const TokenId id : ids) out += at_once.push(id);
      out += at_once.finish();
      // Bytes that are no UTF-8 are replaced piece by piece: compare what is left of both without them.
      const auto plain = [](const std::string& s) {
        std::string kept;
        for (const char c : s)
          if (static_cast<unsigned char>(c) < 0x80) kept += c;
        return kept;
      };
      EXPECT_EQ(plain(out), plain(whole)) << name << " seed " << seed;
    }
  }
}

// Counts what is decoded.
class Counting : public test::ByteTokenizer {
 public:
  std::string decode(std::span<const TokenId> ids, bool skip_special = false) const override {
    decoded += ids.size();
    return ByteTokenizer::decode(ids, skip_special);
  }
  mutable std::size_t decoded = 0;
};

TEST(TextStream, CostsTheSameForEveryToken) {
  const Counting tokenizer;
  TextStream stream(tokenizer);
  for (int i = 0; i < 1000; ++i) stream.push('a' + i % 26);
  const std::size_t first = tokenizer.decoded;
  for (int i = 0; i < 1000; ++i) stream.push('a' + i % 26);
  EXPECT_LE(tokenizer.decoded - first, first + first / 10);
}

}  // namespace
}  // namespace sinew
