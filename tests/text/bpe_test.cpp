#include "text/bpe.hpp"

#include <gtest/gtest.h>

#include "base/error.hpp"
#include "support/property.hpp"
#include "text/byte_level.hpp"
#include "text/tokenizer_vectors.hpp"

namespace sinew {
namespace {

// The definition: the pair of lowest rank, the leftmost among equals, again and again.
std::vector<TokenId> by_definition(std::vector<TokenId> ids,
                                   const std::vector<std::pair<TokenId, TokenId>>& merges,
                                   const std::vector<TokenId>& made) {
  for (;;) {
    std::size_t best_rank = merges.size(), best = 0;
    for (std::size_t i = 0; i + 1 < ids.size(); ++i)
      for (std::size_t rank = 0; rank < best_rank; ++rank)
        if (merges[rank] == std::pair(ids[i], ids[i + 1])) {
          best_rank = rank;
          best = i;
        }
    if (best_rank == merges.size()) return ids;
    ids[best] = made[best_rank];
    ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(best) + 1);
  }
}

}  // namespace

// Random merges over three letters, words on both sides of the limit where the heap takes over.
PROPERTY(Bpe, AgreesWithTheDefinition) {
  auto vocabulary = std::make_shared<Vocabulary>();
  for (const char* letter : {"a", "b", "c"}) vocabulary->add(letter, vocabulary->size(), "test");
  std::vector<std::pair<TokenId, TokenId>> merges;
  std::vector<TokenId> made;
  const int count = test::draw(0, 24);
  for (int i = 0; i < count; ++i) {
    const TokenId left = test::draw<TokenId>(0, vocabulary->size()),
                  right = test::draw<TokenId>(0, vocabulary->size());
    const std::string text = vocabulary->text(left) + vocabulary->text(right);
    if (text.size() > 12 || vocabulary->find(text)) continue;
    made.push_back(vocabulary->size());
    vocabulary->add(text, vocabulary->size(), "test");
    merges.emplace_back(left, right);
  }
  const Bpe bpe(vocabulary, merges, BpeOptions{}, "test");
  const auto length = test::draw<std::size_t>(0, 100);
  const auto word = test::draw_text("abc", length);
  std::vector<TokenId> ids, start;
  bpe.encode_whole(word, ids);
  for (const char letter : word) start.push_back(letter - 'a');
  HOLDS(ids == by_definition(start, merges, made));
}

TEST(Bpe, UnknownCharacters) {
  auto vocabulary = std::make_shared<Vocabulary>();
  vocabulary->add("<unk>", 0, "test");
  vocabulary->add("a", 1, "test");
  const auto ids = [&](bool fuse) {
    BpeOptions options;
    options.unk = 0;
    options.fuse_unk = fuse;
    std::vector<TokenId> out;
    Bpe(vocabulary, {}, options, "test").encode_whole("xyaz", out);
    return out;
  };
  EXPECT_EQ(ids(false), (std::vector<TokenId>{0, 0, 1, 0}));
  EXPECT_EQ(ids(true), (std::vector<TokenId>{0, 1, 0}));
}

TEST(Bpe, AMergeMustMakeAToken) {
  auto vocabulary = std::make_shared<Vocabulary>();
  vocabulary->add("a", 0, "test");
  EXPECT_THROW(Bpe(vocabulary, {{0, 0}}, BpeOptions{}, "test"), UserError);
}

// The cache, the cuts before marks and the threads change nothing.
TEST(Bpe, LongTextsEncodeAsTheirPieces) {
  SINEW_NEED_DATA();
  const std::string text = test::slurp(test::data_dir() / "text/tinyshakespeare.txt");
  for (const char* name :
       {"tokenizers/gpt2", "tokenizers/phi-3/tokenizer.json", "tokenizers/llama2/tokenizer.model"}) {
    const auto tokenizer = load_tokenizer(test::data_dir() / name);
    const auto ids = tokenizer->encode(text);
    EXPECT_EQ(tokenizer->decode(ids), text);
    // Cut at line ends that no pre-token crosses: before a newline that follows a letter or mark.
    if (std::string(name) != "tokenizers/gpt2") continue;
    std::vector<TokenId> pieces;
    for (std::size_t begin = 0; begin < text.size();) {
      std::size_t end = text.find('\n', begin + 1);
      if (end == std::string::npos)
        end = text.size();
      else
        while (end < text.size() && (text[end] != '\n' || text[end - 1] == '\n' || text[end - 1] == ' '))
          ++end;
      const auto part = tokenizer->encode(std::string_view(text).substr(begin, end - begin));
      pieces.insert(pieces.end(), part.begin(), part.end());
      begin = end;
    }
    EXPECT_EQ(ids, pieces);
  }
}

}  // namespace sinew
