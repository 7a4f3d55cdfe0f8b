#include "text/build_data_set.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <map>

#include "base/signals.hpp"
#include "support/support.hpp"
#include "text/byte_tokenizer.hpp"

namespace sinew {
namespace {

using test::ByteTokenizer;
using test::slurp;
using test::spit;
using test::TempDir;
using testing::HasSubstr;

// A corpus of `count` documents, one a form feed, some of them twice.
std::string corpus(int count) {
  std::string text;
  for (int i = 0; i < count; ++i) {
    const int id = i % 7 == 3 ? i - 3 : i;
    text += fmt::format("Document {}.\n", id);
    for (int line = 0; line < id * 37 % 11; ++line) text += fmt::format("Line {} of document {}\n", line, id);
    text += "\f";
  }
  return text;
}

struct Corpus {
  TempDir dir;
  DataSetOptions options;
  explicit Corpus(const std::string& text, const std::string& name = "corpus.txt") {
    spit(dir / name, text);
    spit(dir / "tok.json", "{\"a\": \"tokenizer\"}");
    options.inputs = {dir / name};
    options.out = dir / "out";
  }
  DataSetResult build(const Tokenizer& tokenizer = ByteTokenizer()) const {
    return build_data_set(options, tokenizer, dir / "tok.json");
  }
  std::string error() const {
    try {
      build();
    } catch (const Error& bad) {
      return bad.what();
    }
    return "no error";
  }
};

std::map<std::string, std::string> files(const fs::path& directory) {
  std::map<std::string, std::string> all;
  for (const auto& entry : fs::directory_iterator(directory))
    all[entry.path().filename()] = slurp(entry.path());
  return all;
}

std::vector<TokenId> tokens_of(const fs::path& directory, const DataSetInfo& info, const SplitInfo& split) {
  const MappedSplit mapped(directory, info, split);
  std::vector<TokenId> tokens(mapped.tokens());
  std::vector<std::int32_t> documents(tokens.size());
  mapped.read(0, tokens, documents);
  return tokens;
}

TEST(BuildDataSet, EveryDocumentOnceAndCountsAreExact) {
  for (const std::int64_t vocab : {257, 100'000}) {
    Corpus c(corpus(500));
    c.options.val_fraction = 0.1;
    c.options.shard_tokens = 5000;
    const auto result = c.build(ByteTokenizer(vocab));
    const DataSetInfo info = check_data_set(c.options.out);
    EXPECT_EQ(to_json(info), to_json(result.info));
    EXPECT_EQ(info.token_bytes, vocab == 257 ? 2 : 4);
    EXPECT_GT(info.train.shards.size(), 3u);
    EXPECT_EQ(info.train.documents + info.validation.documents, 500u);
    EXPECT_EQ(info.train.tokens, info.train.bytes + info.train.documents);  // a token a byte, and EOS
    EXPECT_NEAR(static_cast<double>(info.validation.bytes), 0.1 * static_cast<double>(info.train.bytes),
                4000);

    const ByteTokenizer tokenizer(vocab);
    std::multiset<std::string> written, expected;
    for (const auto* split : {&info.train, &info.validation}) {
      std::vector<TokenId> document;
      for (const TokenId id : tokens_of(c.options.out, info, *split)) {
        document.push_back(id);
        if (id != *info.eos) continue;
        written.insert(tokenizer.decode(document));
        document.clear();
      }
      EXPECT_TRUE(document.empty());
    }
    DocumentReader reader(c.options.inputs);
    for (Document d; reader.next(d);) expected.insert(d.text);
    EXPECT_TRUE(written == expected);
  }
}

TEST(BuildDataSet, SplitsShareNoDocument) {
  Corpus c(corpus(600));
  c.options.val_fraction = 0.2;
  const auto info = c.build().info;
  const ByteTokenizer tokenizer;
  const std::string train = tokenizer.decode(tokens_of(c.options.out, info, info.train));
  const MappedSplit validation(c.options.out, info, info.validation);
  std::vector<TokenId> ids(validation.tokens());
  std::vector<std::int32_t> ordinals(ids.size());
  validation.read(0, ids, ordinals);
  EXPECT_EQ(ordinals.back() + 1, static_cast<std::int32_t>(info.validation.documents));
  for (std::size_t i = 0; i < ids.size();) {
    std::size_t end = i;
    while (end < ids.size() && ordinals[end] == ordinals[i]) ++end;
    EXPECT_EQ(ids[end - 1], *info.eos);
    EXPECT_EQ(train.find(tokenizer.decode(std::span(ids).subspan(i, end - i))), std::string::npos);
    i = end;
  }
}

TEST(BuildDataSet, DuplicatesAreLeftOut) {
  Corpus c(corpus(700));
  c.options.dedup = true;
  const auto info = c.build().info;
  EXPECT_EQ(info.duplicates, 100u);
  EXPECT_EQ(info.train.documents + info.validation.documents, 600u);
}

TEST(BuildDataSet, BatchesAndThreadsDoNotShow) {
  Corpus c(corpus(300));
  c.options.dedup = true;
  c.build();
  const auto expected = files(c.options.out);
  for (const std::size_t batch : {1, 100, 1 << 20}) {
    fs::remove_all(c.options.out);
    c.options.batch_bytes = batch;
    c.build();
    EXPECT_TRUE(files(c.options.out) == expected);
  }
}

TEST(BuildDataSet, TinyCorporaHaveAValidationSplit) {
  for (const char* text :
       {"To be, or not to be, that is the question:\nWhether tis nobler in the mind to suffer\n",
        "one\ftwo\fthree", "one two", "abcdefgh"}) {
    const Corpus c(text);
    const auto info = c.build().info;
    EXPECT_GT(info.train.bytes, 0u) << text;
    EXPECT_GT(info.validation.bytes, 0u) << text;
  }
}

TEST(BuildDataSet, EmptyCorpora) {
  EXPECT_THAT(Corpus("").error(), HasSubstr("the corpus is empty"));
  EXPECT_THAT(Corpus("\n \n\n").error(), HasSubstr("the corpus is empty"));
  EXPECT_THAT(Corpus("{\"text\":\"\"}\n", "a.jsonl").error(), HasSubstr("the corpus is empty"));
}

TEST(BuildDataSet, CompleteAndRunAgainSaysSo) {
  Corpus c(corpus(50));
  EXPECT_FALSE(c.build().was_complete);
  const auto before = files(c.options.out);
  EXPECT_TRUE(c.build().was_complete);
  EXPECT_TRUE(files(c.options.out) == before);
  c.options.val_fraction = 0.3;
  EXPECT_THAT(c.error(), HasSubstr("holds a finished data set made with val_fraction = 0.02, now 0.3"));
  c.options.val_fraction = 0.02;
  spit(c.options.inputs[0], corpus(51));
  EXPECT_THAT(c.error(), HasSubstr("other input files"));
  spit(c.options.inputs[0], corpus(50));
  spit(c.dir / "tok.json", "{}");
  EXPECT_THAT(c.error(), HasSubstr("another tokenizer"));
  EXPECT_TRUE(files(c.options.out) == before);
}

TEST(BuildDataSet, ForeignDirectoriesAreLeftAlone) {
  Corpus c(corpus(50));
  fs::create_directories(c.options.out);
  spit(c.options.out / "letter.txt", "mine");
  EXPECT_THAT(c.error(), HasSubstr("not empty and no data set"));
  c.options.out = c.dir / "corpus.txt";
  EXPECT_THAT(c.error(), HasSubstr("is a file"));
  c.options.out = c.dir / "corpus.txt/out";
  EXPECT_THAT(c.error(), HasSubstr("corpus.txt"));
}

// A byte tokenizer that calls `act` at the n-th document.
class Acting : public ByteTokenizer {
 public:
  Acting(int n, std::function<void()> act) : left_(n), act_(std::move(act)) {}
  std::vector<TokenId> encode(std::string_view text, bool a = false, bool b = true) const override {
    if (--left_ == 0) act_();
    return ByteTokenizer::encode(text, a, b);
  }

 private:
  mutable std::atomic<int> left_;
  std::function<void()> act_;
};

struct Broken : Corpus {
  std::map<std::string, std::string> expected;
  Broken() : Corpus(corpus(100)) {
    options.shard_tokens = 1500;
    options.val_fraction = 0.1;
    options.dedup = true;
    build();
    expected = files(options.out);
    fs::remove_all(options.out);
    options.batch_bytes = 500;
    options.save_seconds = 0;
  }
};

TEST(BuildDataSet, StoppedBySignalItGoesOn) {
  Broken c;
  catch_stop_signals();
  int runs = 0;
  for (bool done = false; !done; ++runs) {
    ASSERT_LT(runs, 50);
    try {
      const auto result = c.build(Acting(15, [] { raise(SIGINT); }));
      EXPECT_TRUE(result.resumed);
      done = true;
    } catch (const Interrupted& stopped) {
      EXPECT_EQ(stopped.exit_code(), 128 + SIGINT);
      EXPECT_THAT(stopped.what(), HasSubstr("run the same command again"));
      EXPECT_THROW(read_data_set(c.options.out), UserError);
    }
    clear_stop_request();
  }
  EXPECT_GT(runs, 3);
  EXPECT_TRUE(files(c.options.out) == c.expected);
}

TEST(BuildDataSet, KilledItGoesOn) {
#if defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "ThreadSanitizer starts no threads after a fork";
#endif
  Broken c;
  c.options.batch_bytes = 1;  // one document: encoded without the thread pool, which a fork does not have
  int runs = 0;
  for (int status = 1; status != 0; ++runs) {
    ASSERT_LT(runs, 50);
    const pid_t child = fork();
    if (child == 0) {
      try {
        c.build(Acting(12 + 3 * runs, [] { kill(getpid(), SIGKILL); }));
      } catch (...) {
        _exit(1);
      }
      _exit(0);
    }
    waitpid(child, &status, 0);
    ASSERT_FALSE(WIFEXITED(status) && WEXITSTATUS(status) != 0);
    // What a crash in the middle of a write leaves: longer files and a temporary one.
    if (status != 0) {
      spit(c.options.out / "unfinished.json.tmp99", "{");
      spit(c.options.out / "train-00009.bin", "x");
      fs::path last;
      for (const auto& [name, content] : files(c.options.out))
        if (name < "train-00009.bin" && name.ends_with(".bin")) last = c.options.out / name;
      // (a shard that is closed is whole on disk)
      if (slurp(c.options.out / kUnfinishedFile).find(last.filename()) != std::string::npos) last.clear();
      if (!last.empty()) spit(last, slurp(last) + "torn");
    }
  }
  EXPECT_GT(runs, 3);
  EXPECT_TRUE(files(c.options.out) == c.expected);
}

TEST(BuildDataSet, UnfinishedAndChangedInputIsAnError) {
  Broken c;
  catch_stop_signals();
  EXPECT_THROW(c.build(Acting(60, [] { raise(SIGTERM); })), Interrupted);
  clear_stop_request();
  c.options.dedup = false;
  EXPECT_THAT(c.error(), HasSubstr("holds an unfinished data set made with dedup = true, now false"));
  c.options.dedup = true;
  const auto when = fs::last_write_time(c.options.inputs[0]);
  fs::last_write_time(c.options.inputs[0], when + std::chrono::seconds(5));
  EXPECT_THAT(c.error(), HasSubstr("the input files changed"));
  fs::last_write_time(c.options.inputs[0], when);
  spit(c.options.out / "train-00000.bin", "");
  EXPECT_THAT(c.error(), HasSubstr("train-00000.bin: shorter than when the work stopped"));
}

TEST(BuildDataSet, DamageIsNamed) {
  Corpus c(corpus(300));
  c.options.shard_tokens = 10000;
  c.build();
  const fs::path shard = c.options.out / "train-00001.bin", index = c.options.out / "train-00000.idx";
  const auto error = [&] {
    try {
      check_data_set(c.options.out);
    } catch (const UserError& bad) {
      return std::string(bad.what());
    }
    return std::string("sound");
  };
  const std::string good = slurp(shard), good_index = slurp(index);
  EXPECT_EQ(error(), "sound");
  std::string bad = good;
  bad[5] ^= 1;
  spit(shard, bad);
  EXPECT_THAT(error(), HasSubstr("train-00001.bin: damaged"));
  spit(shard, good.substr(0, good.size() - 3));
  EXPECT_THAT(error(), HasSubstr("train-00001.bin: truncated"));
  fs::remove(shard);
  EXPECT_THAT(error(), HasSubstr("train-00001.bin: missing"));
  spit(shard, good);
  bad = good_index;
  bad[0] ^= 1;
  spit(index, bad);
  EXPECT_THAT(error(), HasSubstr("train-00000.idx: damaged"));
  spit(index, good_index);
  spit(c.options.out / "tokenizer.json", "{}");
  EXPECT_THAT(error(), HasSubstr("tokenizer.json: not the tokenizer"));
  for (const char* text :
       {"", "{", "[]", "{\"format\":\"sinew-data\"}", "{\"format\":\"x\",\"version\":1}"}) {
    spit(c.options.out / kDataSetFile, text);
    EXPECT_THAT(error(), HasSubstr("dataset.json: ")) << text;
  }
}

TEST(BuildDataSet, VocabularyMismatch) {
  check_vocabulary(257, 257, "the model");
  check_vocabulary(257, 512, "the model");
  EXPECT_THROW(check_vocabulary(513, 512, "the model"), UserError);
}

}  // namespace
}  // namespace sinew
