#include "text/loader.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <thread>

#include "base/files.hpp"
#include "support/property.hpp"
#include "support/support.hpp"
#include "text/build_data_set.hpp"
#include "text/byte_tokenizer.hpp"

namespace sinew {
namespace {

using test::spit;
using test::TempDir;
using testing::HasSubstr;

// Data sets whose tokens are known: document d of set s is `d % 9 + 1` letters, no two runs alike.
class Sets {
 public:
  fs::path make(int documents, std::uint64_t shard_tokens = 100, char letter = 'a',
                double val_fraction = 0.1) {
    const fs::path in = dir_ / fmt::format("{}.txt", made_), out = dir_ / fmt::format("{}", made_);
    ++made_;
    std::string text;
    for (int d = 0; d < documents; ++d)
      text += std::to_string(d) + std::string(static_cast<std::size_t>(d % 9 + 1), letter) + "\f";
    spit(in, text);
    spit(dir_ / "tok.json", "bytes");
    DataSetOptions options;
    options.inputs = {in};
    options.out = out;
    options.shard_tokens = shard_tokens;
    options.val_fraction = val_fraction;
    build_data_set(options, test::ByteTokenizer(), dir_ / "tok.json");
    return out;
  }

 private:
  TempDir dir_;
  int made_ = 0;
};

std::string error_of(const LoaderOptions& options) {
  try {
    const Loader loader(options);
  } catch (const UserError& error) {
    return error.what();
  }
  return "no error";
}

LoaderOptions options_of(const fs::path& path, std::int64_t sequence, std::uint64_t seed = 1) {
  return {.sources = {{path, 1}}, .split = Split::train, .sequence = sequence, .seed = seed};
}

std::vector<TokenId> all_tokens(const fs::path& path) {
  const DataSetInfo info = read_data_set(path);
  const MappedSplit split(path, info, info.train);
  std::vector<TokenId> tokens(split.tokens());
  std::vector<std::int32_t> documents(tokens.size());
  split.read(0, tokens, documents);
  return tokens;
}

TEST(Loader, EachEpochVisitsEverySampleOnce) {
  Sets sets;
  const std::vector<fs::path> paths{sets.make(30, 1), sets.make(100, 64), sets.make(200, 500),
                                    sets.make(150, 10'000)};
  test::check_property("for any sequence length, seed and shard size", [&] {
    const fs::path path = test::draw_from(paths);
    const auto length = static_cast<std::size_t>(test::draw(1, 60));
    const auto seed = test::draw_bits();
    const Loader loader(options_of(path, static_cast<std::int64_t>(length), seed));
    const auto tokens = all_tokens(path);
    HOLDS(loader.tokens() == tokens.size());
    const std::uint64_t n = loader.samples_per_epoch();
    HOLDS(n == (tokens.size() - 1) / length);
    std::multiset<std::vector<TokenId>> expected;
    for (std::size_t i = 0; i < n; ++i)
      expected.emplace(tokens.begin() + static_cast<std::ptrdiff_t>(i * length),
                       tokens.begin() + static_cast<std::ptrdiff_t>((i + 1) * length + 1));
    std::vector<std::vector<TokenId>> orders;
    for (const std::uint64_t epoch : {0, 1, 5}) {
      const TokenBatch batch = loader.get(epoch * n, static_cast<std::int64_t>(n));
      std::multiset<std::vector<TokenId>> seen;
      for (std::size_t row = 0; row < n; ++row) {
        const auto at = batch.tokens.begin() + static_cast<std::ptrdiff_t>(row * (length + 1));
        seen.emplace(at, at + static_cast<std::ptrdiff_t>(length + 1));
      }
      HOLDS(seen == expected);
      orders.push_back(batch.tokens);
    }
    if (n > 20) HOLDS(orders[0] != orders[1] && orders[1] != orders[2]);  // reshuffled
  });
}

TEST(Loader, SamplesDoNotDependOnHowTheyAreAskedFor) {
  Sets sets;
  const fs::path a = sets.make(150), b = sets.make(60, 1000, 'z');
  test::check_property("one by one, in blocks, from anywhere", [&] {
    LoaderOptions options = options_of(a, 16, test::draw_bits());
    options.sources.push_back({b, 0.5});
    const Loader loader(options), again(options);
    const auto first = test::draw<std::uint64_t>(0, 1'000'000);
    const auto rows = test::draw<std::int64_t>(1, 40);
    const TokenBatch batch = loader.get(first, rows);
    for (std::int64_t row = rows - 1; row >= 0; --row) {
      const TokenBatch one = again.get(first + static_cast<std::uint64_t>(row), 1);
      const auto at = static_cast<std::ptrdiff_t>(row * 17);
      HOLDS(std::equal(one.tokens.begin(), one.tokens.end(), batch.tokens.begin() + at));
      HOLDS(std::equal(one.documents.begin(), one.documents.end(), batch.documents.begin() + at));
    }
  });
}

TEST(Loader, DocumentsChangeAfterEveryEndOfText) {
  Sets sets;
  const fs::path path = sets.make(200, 37);
  const Loader loader(options_of(path, 40));
  const TokenId eos = *read_data_set(path).eos;
  const TokenBatch batch = loader.get(0, static_cast<std::int64_t>(loader.samples_per_epoch()));
  for (std::int64_t row = 0; row < batch.rows; ++row) {
    std::int32_t expected = 0;
    for (std::int64_t i = 0; i <= batch.sequence; ++i) {
      const auto at = static_cast<std::size_t>(row * (batch.sequence + 1) + i);
      ASSERT_EQ(batch.documents[at], expected) << row << " " << i;
      if (batch.tokens[at] == eos) ++expected;
    }
  }
}

TEST(Loader, WeightsAreRespectedAndSourcesCycle) {
  Sets sets;
  const fs::path a = sets.make(300, 1000, 'a'), b = sets.make(30, 1000, 'z');
  const std::vector<double> weights{0.75, 0.25};
  const Loader loader({.sources = {{a, 3}, {b, 1}}, .split = Split::train, .sequence = 20, .seed = 7});
  std::vector<double> had(2, 0);
  const TokenBatch batch = loader.get(0, 2000);
  for (std::int64_t row = 0; row < batch.rows; ++row) {
    const auto at = batch.tokens.begin() + row * 21;
    const bool second = std::find(at, at + 21, 'z') != at + 21;
    had[second ? 1 : 0] += 1;
    ASSERT_LT(std::abs(had[0] - static_cast<double>(row + 1) * weights[0]), 1);
  }
}

TEST(Loader, SeedsAndSplitsDiffer) {
  Sets sets;
  const fs::path path = sets.make(300);
  const auto tokens = [&](std::uint64_t seed, Split split) {
    LoaderOptions options = options_of(path, 16, seed);
    options.split = split;
    const Loader loader(options);
    return loader.get(0, 8).tokens;
  };
  EXPECT_EQ(tokens(1, Split::train), tokens(1, Split::train));
  EXPECT_NE(tokens(1, Split::train), tokens(2, Split::train));
  EXPECT_NE(tokens(1, Split::train), tokens(1, Split::validation));
}

TEST(Loader, ManyThreadsGetTheSame) {
  Sets sets;
  const Loader loader(options_of(sets.make(300), 16));
  const auto expected = loader.get(0, 64).tokens;
  std::vector<std::thread> threads;
  std::atomic<int> same = 0;
  for (int t = 0; t < 4; ++t) threads.emplace_back([&] { same += loader.get(0, 64).tokens == expected; });
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(same, 4);
}

TEST(Loader, CountsComeFromTheSplit) {
  Sets sets;
  const fs::path path = sets.make(200);
  const DataSetInfo info = read_data_set(path);
  LoaderOptions options = options_of(path, 8);
  options.split = Split::validation;
  const Loader loader(options);
  EXPECT_EQ(loader.tokens(), info.validation.tokens);
  EXPECT_EQ(loader.bytes(), info.validation.bytes);
  EXPECT_EQ(loader.vocab_size(), 257);
  EXPECT_EQ(loader.tokenizer_checksum(), info.tokenizer_checksum);
}

TEST(Loader, ClearErrors) {
  Sets sets;
  TempDir dir;
  const fs::path path = sets.make(50);
  EXPECT_THAT(error_of(options_of(dir / "nothing", 8)), HasSubstr("no such data set"));
  EXPECT_THAT(error_of(options_of(dir.path(), 8)), HasSubstr("not a data set"));
  EXPECT_THAT(error_of(options_of(path, 100'000)), HasSubstr("less than one sequence of 100000 + 1"));
  EXPECT_THAT(error_of(options_of(path, 0)), HasSubstr("sequence length"));
  EXPECT_THAT(error_of({.sources = {}, .split = Split::train, .sequence = 8, .seed = 0}),
              HasSubstr("no data set given"));
  LoaderOptions held = options_of(sets.make(50, 100, 'a', 0), 8);
  EXPECT_EQ(error_of(held), "no error");
  held.split = Split::validation;
  EXPECT_THAT(error_of(held), HasSubstr("no validation split"));
  spit(dir / "unfinished.json", "{}");
  EXPECT_THAT(error_of(options_of(dir.path(), 8)), HasSubstr("unfinished data set"));
  fs::resize_file(path / "train-00001.bin", 50);
  EXPECT_THAT(error_of(options_of(path, 8)), HasSubstr("train-00001.bin: truncated: 50 bytes"));
  fs::remove(path / "train-00001.bin");
  EXPECT_THAT(error_of(options_of(path, 8)), HasSubstr("train-00001.bin: missing"));
}

TEST(Loader, DamagedTokensAreFoundWhenRead) {
  Sets sets;
  const fs::path path = sets.make(50, 100'000);
  std::string bytes = test::slurp(path / "train-00000.bin");
  bytes[1] = '\x7F';
  spit(path / "train-00000.bin", bytes);
  const Loader loader(options_of(path, 8));
  EXPECT_THROW(loader.get(0, static_cast<std::int64_t>(loader.samples_per_epoch())), UserError);
}

TEST(Loader, OtherTokenizersDoNotMix) {
  Sets one, other;
  const fs::path a = one.make(50), b = other.make(50);
  spit(b / "dataset.json", [&] {
    std::string text = test::slurp(b / "dataset.json");
    const std::string checksum = read_data_set(b).tokenizer_checksum;
    for (auto at = text.find(checksum); at != std::string::npos; at = text.find(checksum))
      text[at] = text[at] == '0' ? '1' : '0';
    return text;
  }());
  EXPECT_THAT(error_of({.sources = {{a, 1}, {b, 1}}, .split = Split::train, .sequence = 8, .seed = 0}),
              HasSubstr("another tokenizer"));
}

}  // namespace
}  // namespace sinew
