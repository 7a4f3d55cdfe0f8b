#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "support/support.hpp"

namespace sinew::test {

using testing::HasSubstr;

class TokenizerCommand : public testing::Test {
 protected:
  TempDir folder;
  std::string tokenizer = folder / "tokenizer.json", text = folder / "text.txt";

  void SetUp() override {
    std::string words;
    for (int i = 0; i < 200; ++i) words += "the quick brown fox jumps over the lazy dog\n";
    spit(text, words + "\xFF\xFE raw bytes");
    const auto run = run_sinew({"tokenizer", "train", text, "--vocab-size", "280", "--out", tokenizer});
    ASSERT_EQ(run.exit_code, 0) << run.error;
  }
};

TEST_F(TokenizerCommand, EncodesAndDecodesAFileExactly) {
  const auto encoded = run_sinew({"tokenizer", "encode", tokenizer, "--file", text, "--json"});
  ASSERT_EQ(encoded.exit_code, 0) << encoded.error;
  const auto ids = nlohmann::json::parse(encoded.output);
  ASSERT_TRUE(ids.is_array());
  EXPECT_LT(ids.size(), slurp(text).size() / 2);
  spit(folder / "ids.json", encoded.output);
  const auto decoded = run_sinew({"tokenizer", "decode", tokenizer, "--file", folder / "ids.json"});
  EXPECT_EQ(decoded.output, slurp(text));
  const auto plain = run_sinew({"tokenizer", "encode", tokenizer, "the dog"});
  EXPECT_EQ(run_sinew({"tokenizer", "decode", tokenizer, plain.output}).output, "the dog");
}

TEST_F(TokenizerCommand, SpecialTokens) {
  const auto ids = [&](std::vector<std::string> flags) {
    std::vector<std::string> arguments{"tokenizer", "encode", tokenizer, "--json", "<|endoftext|>"};
    arguments.insert(arguments.end(), flags.begin(), flags.end());
    return nlohmann::json::parse(run_sinew(arguments).output);
  };
  EXPECT_EQ(ids({}), nlohmann::json::array({0}));
  EXPECT_GT(ids({"--no-parse-special"}).size(), 1u);
}

TEST_F(TokenizerCommand, TrainingIsDeterministic) {
  for (const char* threads : {"1", "3"}) {
    const std::string out = folder / "again.json";
    const auto run = run_sinew({"tokenizer", "train", text, "--vocab-size", "280", "--out", out},
                               {std::string("SINEW_THREADS=") + threads});
    ASSERT_EQ(run.exit_code, 0) << run.error;
    EXPECT_EQ(slurp(out), slurp(tokenizer));
  }
}

TEST_F(TokenizerCommand, Info) {
  const auto run = run_sinew({"tokenizer", "info", tokenizer, "--json"});
  const auto facts = nlohmann::json::parse(run.output);
  EXPECT_EQ(facts["vocab_size"], 280);
  EXPECT_EQ(facts["eos"]["text"], "<|endoftext|>");
}

TEST_F(TokenizerCommand, MistakesGiveOneLineAndExitCode2) {
  const std::vector<std::vector<std::string>> mistakes = {
      {"tokenizer", "encode", folder / "missing.json", "x"},
      {"tokenizer", "encode", text, "x"},
      {"tokenizer", "decode", tokenizer, "12x"},
      {"tokenizer", "decode", tokenizer, "280"},
      {"tokenizer", "decode", tokenizer, "[1, \"a\"]"},
      {"tokenizer", "encode", tokenizer, "x", "--file", text},
      {"tokenizer", "train", text, "--vocab-size", "100", "--out", folder / "no.json"},
      {"tokenizer", "train", folder / "missing.txt", "--out", folder / "no.json"},
      {"tokenizer", "train", text, "--vocab-size", "280", "--out", folder / "no/such/folder/t.json"},
      {"tokenizer", "frobnicate"},
  };
  for (const auto& arguments : mistakes) {
    const auto run = run_sinew(arguments);
    EXPECT_EQ(run.exit_code, 2) << arguments[1] << ": " << run.error;
    EXPECT_THAT(run.error, HasSubstr("sinew: "));
    EXPECT_FALSE(fs::exists(folder / "no.json"));
  }
}

}  // namespace sinew::test
