#include "text/pre_tokenizer.hpp"

#include <gtest/gtest.h>

#include "base/error.hpp"
#include "support/property.hpp"

namespace sinew {
namespace {

std::vector<std::string> cut(const char* json, const std::string& text) {
  const auto value = nlohmann::json::parse(json);
  const PreTokenizer pre_tokenizer = parse_pre_tokenizer({value, "test"});
  std::vector<Piece> pieces{{text, true}};
  std::deque<std::string> texts;
  pre_tokenizer(pieces, texts);
  std::vector<std::string> out;
  for (const Piece& piece : pieces) out.emplace_back(piece.text);
  return out;
}

using Pieces = std::vector<std::string>;

std::string split_on_dash(const char* behavior) {
  return std::string(R"({"type":"Split","pattern":{"String":"-"},"behavior":")") + behavior +
         R"(","invert":false})";
}

}  // namespace

// The cases of tokenizers' own tests (normalizer.rs, fn split).
TEST(PreTokenizer, SplitBehaviors) {
  const std::string text = "The-final--countdown";
  EXPECT_EQ(cut(split_on_dash("Removed").c_str(), text), (Pieces{"The", "final", "countdown"}));
  EXPECT_EQ(cut(split_on_dash("Isolated").c_str(), text),
            (Pieces{"The", "-", "final", "-", "-", "countdown"}));
  EXPECT_EQ(cut(split_on_dash("MergedWithPrevious").c_str(), text),
            (Pieces{"The-", "final-", "-", "countdown"}));
  EXPECT_EQ(cut(split_on_dash("MergedWithNext").c_str(), text), (Pieces{"The", "-final", "-", "-countdown"}));
  EXPECT_EQ(cut(split_on_dash("Contiguous").c_str(), text), (Pieces{"The", "-", "final", "--", "countdown"}));
}

TEST(PreTokenizer, Gpt2Pattern) {
  const char* json =
      R"({"type":"Split","pattern":{"Regex":"'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"},"behavior":"Isolated","invert":false})";
  EXPECT_EQ(cut(json, "I've  3 cats\n\n!"), (Pieces{"I", "'ve", " ", " 3", " cats", "\n", "\n", "!"}));
  // U+180E is no white space since Unicode 6.3, though PCRE2's \s has it.
  EXPECT_EQ(cut(json, "a \xE1\xA0\x8E"), (Pieces{"a", " \xE1\xA0\x8E"}));
}

// One half and a circled S are of \\w in Oniguruma, a circled 7 is not.
TEST(PreTokenizer, WordCharactersAreThoseOfOniguruma) {
  const char* json = R"({"type":"Split","pattern":{"Regex":"\\w+"},"behavior":"Isolated","invert":false})";
  EXPECT_EQ(cut(json, "a\xC2\xBD\xE2\x93\x88\xE2\x91\xA6"),
            (Pieces{"a\xC2\xBD\xE2\x93\x88", "\xE2\x91\xA6"}));
}

TEST(PreTokenizer, DigitsPunctuationMetaspace) {
  EXPECT_EQ(cut(R"({"type":"Digits","individual_digits":true})", "a12"), (Pieces{"a", "1", "2"}));
  EXPECT_EQ(cut(R"({"type":"Digits","individual_digits":false})", "a12b"), (Pieces{"a", "12", "b"}));
  EXPECT_EQ(cut(R"({"type":"Punctuation"})", "a,b"), (Pieces{"a", ",", "b"}));
  EXPECT_EQ(cut(R"({"type":"Metaspace","replacement":"_","prepend_scheme":"always"})", "a b"),
            (Pieces{"_a", "_b"}));
}

TEST(PreTokenizer, ByteLevelWritesBytesAsCharacters) {
  EXPECT_EQ(cut(R"({"type":"ByteLevel","add_prefix_space":true})", "a\xFF"), (Pieces{"\xC4\xA0"
                                                                                     "a",
                                                                                     "\xC3\xBF"}));
}

TEST(PreTokenizer, RefusesWhatItDoesNotKnow) {
  EXPECT_THROW(cut(R"({"type":"UnicodeScripts"})", "a"), UserError);
  EXPECT_THROW(cut(R"({"type":"Split","pattern":{"Regex":"["},"behavior":"Isolated"})", "a"), UserError);
  EXPECT_THROW(cut(R"({"type":"Split","pattern":{"Regex":"[a&&b]"},"behavior":"Isolated"})", "a"), UserError);
  EXPECT_THROW(cut(R"({"type":"Split","pattern":{"Regex":"a"},"behavior":"Merged"})", "a"), UserError);
  std::string deep = R"({"type":"Sequence","pretokenizers":[)";
  std::string json = R"({"type":"ByteLevel"})";
  for (int i = 0; i < 40; ++i) json = deep + json + "]}";
  EXPECT_THROW(cut(json.c_str(), "a"), UserError);
}

PROPERTY(PreTokenizer, IsolatedPiecesAreTheText) {
  const std::string bytes = test::draw_bytes();
  std::string joined;
  for (const auto& piece :
       cut(R"({"type":"Split","pattern":{"Regex":"\\s*\\w+|x*"},"behavior":"Isolated"})", bytes))
    joined += piece;
  HOLDS(joined == bytes);
}

}  // namespace sinew
