#include "text/tokenizer_json.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.hpp"
#include "support/property.hpp"
#include "text/tokenizer_vectors.hpp"

namespace sinew {

namespace {

using test::data_dir;

constexpr const char* kSmall = R"({
  "version": "1.0", "normalizer": null, "decoder": null,
  "added_tokens": [
    {"id": 10, "content": "<end>", "special": true, "normalized": false},
    {"id": 11, "content": "<lr>", "lstrip": true, "rstrip": true, "normalized": false}],
  "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false},
  "post_processor": {"type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "<end>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
    "special_tokens": {"<end>": {"id": "<end>", "ids": [10], "tokens": ["<end>"]}}},
  "model": {"type": "BPE", "dropout": null, "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}
})";

}  // namespace

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

TEST(TokenizerJson, AddedTokensAreFoundInText) {
  const auto tokenizer =
      parse_tokenizer_json(kSmall, R"({"eos_token":"<end>","tokenizer_class":"X"})", "small");
  EXPECT_EQ(tokenizer->encode("ab<end>a"), (std::vector<TokenId>{2, 10, 0}));
  EXPECT_EQ(tokenizer->encode("a <lr> b"), (std::vector<TokenId>{0, 11, 1}));  // takes the spaces around
  EXPECT_EQ(tokenizer->encode("ab", true), (std::vector<TokenId>{10, 2}));     // the template
  EXPECT_EQ(tokenizer->eos(), 10);
  EXPECT_EQ(tokenizer->vocab_size(), 12);
  EXPECT_EQ(tokenizer->token_id("<end>"), 10);
  EXPECT_EQ(tokenizer->token_id("ab"), 2);
  EXPECT_EQ(tokenizer->token_id("nothing"), std::nullopt);
  EXPECT_TRUE(tokenizer->is_special(10));
  EXPECT_FALSE(tokenizer->is_special(11));
  const std::vector<TokenId> ids{2, 10, 1};
  EXPECT_EQ(tokenizer->decode(ids), "ab<end>b");
  EXPECT_EQ(tokenizer->decode(ids, true), "abb");
  EXPECT_THROW(tokenizer->decode(std::vector<TokenId>{12}), UserError);
  EXPECT_THROW(tokenizer->decode(std::vector<TokenId>{-1}), UserError);
}

// Each replacement breaks the small file in one way; the error names the place.
TEST(TokenizerJson, OneClearLineForWhatIsNotSupported) {
  const auto error_of = [](const std::string& from, const std::string& to) -> std::string {
    std::string json = kSmall;
    const std::size_t at = json.find(from);
    if (at == std::string::npos) return "the test's text is not in the file: " + from;
    json.replace(at, from.size(), to);
    try {
      parse_tokenizer_json(json, "", "t.json");
    } catch (const UserError& error) {
      const std::string text = error.what();
      return text.find('\n') == std::string::npos ? text : "more than one line: " + text;
    }
    return "no error";
  };
  using testing::HasSubstr;
  EXPECT_THAT(error_of(R"("type": "BPE")", R"("type": "WordPiece")"),
              HasSubstr("the model \"WordPiece\" is not supported"));
  EXPECT_THAT(error_of(R"("ByteLevel")", R"("UnicodeScripts")"),
              HasSubstr("t.json: pre_tokenizer: the pre-tokenizer"));
  EXPECT_THAT(error_of(R"("normalizer": null)", R"("normalizer": {"type": "Nmt"})"),
              HasSubstr("normalizer: the normalizer"));
  EXPECT_THAT(error_of(R"("decoder": null)", R"("decoder": {"type": "CTC"})"),
              HasSubstr("decoder: the decoder"));
  EXPECT_THAT(error_of(R"("a b")", R"("a c")"), HasSubstr("\"c\" is not in the vocabulary"));
  EXPECT_THAT(error_of(R"("a b")", R"("ab")"), HasSubstr("merge 0"));
  EXPECT_THAT(error_of(R"("ab": 2)", R"("ab": -2)"), HasSubstr("token id -2 is out of range"));
  EXPECT_THAT(error_of(R"("ab": 2)", R"("ab": 4000000000)"), HasSubstr("out of range"));
  EXPECT_THAT(error_of(R"("ab": 2)", R"("ab": 1)"), HasSubstr("token id 1 is given to two tokens"));
  EXPECT_THAT(error_of(R"("dropout": null)", R"("dropout": 0.1)"), HasSubstr("dropout"));
  EXPECT_THAT(error_of("{", "["), HasSubstr("t.json: not valid JSON"));
}

TEST(TokenizerJson, Normalizers) {
  const auto encoded = [](const std::string& normalizer, const std::string& text) {
    std::string json = kSmall;
    const std::string from = R"("normalizer": null)";
    json.replace(json.find(from), from.size(), R"("normalizer": )" + normalizer);
    return parse_tokenizer_json(json, "", "t.json")->encode(text);
  };
  EXPECT_EQ(encoded(R"({"type": "Lowercase"})", "AB"), (std::vector<TokenId>{2}));
  EXPECT_EQ(encoded(R"({"type": "Strip", "strip_left": true, "strip_right": true})", "  ab \n"),
            (std::vector<TokenId>{2}));
  EXPECT_EQ(encoded(R"({"type": "Replace", "pattern": {"Regex": "x+"}, "content": "a"})", "xxxb"),
            (std::vector<TokenId>{2}));
  EXPECT_EQ(encoded(R"({"type": "Sequence", "normalizers": [{"type": "NFD"}, {"type": "StripAccents"}]})",
                    "\xC3\xA1"
                    "b"),
            (std::vector<TokenId>{2}));
  EXPECT_EQ(encoded(R"({"type": "NFKC"})",
                    "\xEF\xBD\x81"
                    "b"),
            (std::vector<TokenId>{2}));  // a fullwidth a
}

TEST(TokenizerJson, EveryByteStringSurvives) {
  SINEW_NEED_DATA();
  const auto tokenizer = load_tokenizer(data_dir() / "tokenizers/gpt2");
  test::check_property("decode(encode(x)) == x", [&] {
    const std::string bytes = test::draw_bytes();
    HOLDS(tokenizer->decode(tokenizer->encode(bytes)) == bytes);
  });
}

TEST(LoadTokenizer, ClearErrors) {
  const test::TempDir folder;
  EXPECT_THROW(load_tokenizer(folder / "missing"), UserError);
  EXPECT_THROW(load_tokenizer(folder.path()), UserError);  // nothing in it
  test::spit(folder / "empty.json", "");
  EXPECT_THROW(load_tokenizer(folder / "empty.json"), UserError);
  test::spit(folder / "other.txt", "just words");
  EXPECT_THROW(load_tokenizer(folder / "other.txt"), UserError);
}

}  // namespace sinew
