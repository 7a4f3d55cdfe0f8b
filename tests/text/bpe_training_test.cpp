#include "text/bpe_training.hpp"

#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "base/error.hpp"
#include "support/property.hpp"
#include "support/support.hpp"
#include "text/byte_level.hpp"
#include "text/tokenizer.hpp"
#include "text/tokenizer_json.hpp"

namespace sinew {
namespace {

using test::data_dir;
using test::slurp;

TrainedBpe learn(const std::vector<std::string>& texts, const BpeTrainingOptions& options) {
  WordCounter counter(options.special_tokens);
  std::vector<Document> documents;
  for (const auto& text : texts) documents.push_back({text, 0, 0});
  counter.count(documents);
  return train_bpe(counter.take(), options);
}

// The definition, word for word: count every pair of every word anew for each merge.
std::vector<std::pair<std::string, std::string>> naive_merges(const WordCounts& counts, std::size_t wanted) {
  std::vector<std::pair<std::vector<std::string>, std::uint64_t>> words;
  for (const auto& word : counts.sorted()) {
    std::vector<std::string> symbols;
    for (const char byte : counts.text(word)) symbols.emplace_back(1, byte);
    words.emplace_back(symbols, word.count);
  }
  std::vector<std::pair<std::string, std::string>> merges;
  std::set<std::string> tokens;
  while (tokens.size() < wanted) {
    std::map<std::pair<std::string, std::string>, std::uint64_t> pairs;
    for (const auto& [symbols, count] : words)
      for (std::size_t i = 0; i + 1 < symbols.size(); ++i) pairs[{symbols[i], symbols[i + 1]}] += count;
    if (pairs.empty()) break;
    auto best = pairs.begin();
    for (auto it = pairs.begin(); it != pairs.end(); ++it)
      if (it->second >= best->second) best = it;  // the map is in rising order: the greater pair wins
    merges.push_back(best->first);
    tokens.insert(best->first.first + best->first.second);
    for (auto& [symbols, count] : words) {
      std::vector<std::string> joined;
      for (std::size_t i = 0; i < symbols.size(); ++i) {
        const bool here =
            i + 1 < symbols.size() && symbols[i] == best->first.first && symbols[i + 1] == best->first.second;
        joined.push_back(here ? symbols[i] + symbols[i + 1] : symbols[i]);
        i += here ? 1 : 0;
      }
      symbols = joined;
    }
  }
  return merges;
}

}  // namespace

TEST(BpeTraining, GivesTheReferenceMergesAndVocabulary) {
  SINEW_NEED_DATA();
  const auto folder = data_dir() / "tokenizers/bpe_training_reference";
  BpeTrainingOptions options;
  options.vocab_size = 500;
  const TrainedBpe bpe = learn({slurp(folder / "corpus.en")}, options);
  std::istringstream lines(slurp(folder / "train-bpe-reference-merges.txt"));
  std::vector<std::string> expected, learned;
  for (std::string line; std::getline(lines, line);) expected.push_back(line);
  for (const auto& [left, right] : bpe.merges)
    learned.push_back(bytes_to_chars(left) + " " + bytes_to_chars(right));
  EXPECT_EQ(learned, expected);

  const auto vocabulary = nlohmann::json::parse(slurp(folder / "train-bpe-reference-vocab.json"));
  EXPECT_EQ(nlohmann::json::parse(write_tokenizer_json(bpe))["model"]["vocab"], vocabulary);
}

TEST(BpeTraining, TheWrittenTokenizerEncodesAndDecodes) {
  BpeTrainingOptions options;
  options.vocab_size = 270;
  options.special_tokens = {"<|endoftext|>", "<|user|>"};
  const TrainedBpe bpe = learn({"low low low lower lower newest newest<|user|>newest"}, options);
  const auto tokenizer = parse_tokenizer_json(write_tokenizer_json(bpe), "", "trained");
  EXPECT_EQ(tokenizer->vocab_size(), 270);
  EXPECT_EQ(tokenizer->token_id("<|user|>"), 1);
  const std::string text = "lowest<|user|> new \xFF\xFE bytes\n\n";
  const auto ids = tokenizer->encode(text);
  EXPECT_EQ(tokenizer->decode(ids), text);
  EXPECT_EQ(std::count(ids.begin(), ids.end(), 1), 1);
  EXPECT_LT(ids.size(), text.size() - 7);
}

TEST(BpeTraining, SpecialTokensAreCutOutOfTheText) {
  BpeTrainingOptions options;
  options.vocab_size = 1000;
  const TrainedBpe bpe = learn({"ab<|endoftext|>ab"}, options);
  ASSERT_EQ(bpe.merges.size(), 1u);
  EXPECT_EQ(bpe.merges[0], std::make_pair(std::string("a"), std::string("b")));
}

TEST(BpeTraining, RarePairsAreLeftAlone) {
  BpeTrainingOptions options;
  options.min_count = 2;
  const TrainedBpe bpe = learn({"ab ab cd"}, options);
  ASSERT_EQ(bpe.merges.size(), 1u);  // " " and "a" meet once, "a" and "b" twice
  EXPECT_EQ(bpe.merges[0].first, "a");
}

TEST(BpeTraining, NeedsRoomForBytesAndSpecialTokens) {
  BpeTrainingOptions options;
  options.vocab_size = 256;
  EXPECT_THROW(learn({"a"}, options), UserError);
}

PROPERTY(BpeTraining, AgreesWithTheDefinition) {
  const auto texts = test::draw_list(1 + test::draw_length(), [] { return test::draw_text("aabc "); });
  BpeTrainingOptions options;
  options.vocab_size = 257 + 12;
  WordCounter counter(options.special_tokens), again(options.special_tokens);
  std::vector<Document> documents;
  for (const auto& text : texts) documents.push_back({text, 0, 0});
  counter.count(documents);
  again.count(documents);
  const auto learned = train_bpe(counter.take(), options).merges;
  HOLDS(learned == naive_merges(again.take(), 12));
}

}  // namespace sinew
