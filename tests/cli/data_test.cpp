// sinew data as people run it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "support/support.hpp"

namespace sinew::test {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

// The smallest byte-level BPE: 256 bytes, no merges, and an end-of-text token.
std::string byte_tokenizer() {
  nlohmann::json vocab;
  int id = 0;
  const auto add = [&](int first, int last) {
    for (int c = first; c <= last; ++c) {
      std::string letter;
      if (c < 0x80)
        letter = static_cast<char>(c);
      else
        letter = {static_cast<char>(0xC0 | c >> 6), static_cast<char>(0x80 | (c & 0x3F))};
      vocab[letter] = id++;
    }
  };
  add('!', '~');
  add(0xA1, 0xAC);
  add(0xAE, 0xFF);
  add(256, 256 + 67);
  const nlohmann::json pre{
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}};
  const nlohmann::json end{{"id", id},           {"content", "<|endoftext|>"},
                           {"special", true},    {"single_word", false},
                           {"lstrip", false},    {"rstrip", false},
                           {"normalized", false}};
  return nlohmann::json{{"version", "1.0"},
                        {"added_tokens", {end}},
                        {"normalizer", nullptr},
                        {"pre_tokenizer", pre},
                        {"post_processor", nullptr},
                        {"decoder", pre},
                        {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", nlohmann::json::array()}}}}
      .dump();
}

struct DataCommand : testing::Test {
  TempDir dir;
  std::vector<std::string> arguments;
  void SetUp() override {
    spit(dir / "tokenizer.json", byte_tokenizer());
    std::string text;
    for (int i = 0; i < 400; ++i)
      text += "Document " + std::to_string(i) + ": " + std::string(i % 50, 'x') + "\n\f\n";
    spit(dir / "text.txt", text);
    arguments = command("text.txt", "out");
  }
  std::vector<std::string> command(const std::string& input, const std::string& out) const {
    return {"data",  (dir / input).string(), "--tokenizer", (dir / "tokenizer.json").string(),
            "--out", (dir / out).string()};
  }
  void expect_refused(const std::vector<std::string>& args, const std::string& why) const {
    const auto run = run_sinew(args);
    EXPECT_EQ(run.exit_code, 2) << run.error;
    EXPECT_THAT(run.error, HasSubstr(why));
    EXPECT_THAT(run.error, StartsWith("sinew: "));
    EXPECT_EQ(std::count(run.error.begin(), run.error.end(), '\n'), 1) << run.error;
    EXPECT_EQ(run.output, "");
  }
};

TEST_F(DataCommand, MakesADataSetAndSaysWhenItIsThere) {
  const auto first = run_sinew(arguments);
  ASSERT_EQ(first.exit_code, 0) << first.error;
  EXPECT_THAT(first.output, HasSubstr("out: complete\n"));
  const auto again = run_sinew(arguments);
  EXPECT_EQ(again.exit_code, 0);
  EXPECT_THAT(again.output, HasSubstr("already complete, nothing to do"));
  arguments.push_back("--json");
  const auto json = nlohmann::json::parse(run_sinew(arguments).output);
  EXPECT_EQ(json.at("already_complete"), true);
  EXPECT_EQ(json.at("vocab_size"), 257);
  const auto& splits = json.at("splits");
  EXPECT_EQ(
      splits.at("train").at("documents").get<int>() + splits.at("validation").at("documents").get<int>(),
      400);
  EXPECT_EQ(fs::file_size(dir / "out" / "train-00000.bin"),
            2 * splits.at("train").at("tokens").get<std::size_t>());
  EXPECT_EQ(slurp(dir / "out" / "tokenizer.json"), byte_tokenizer());
}

TEST_F(DataCommand, ThreadsDoNotShow) {
  ASSERT_EQ(run_sinew(command("text.txt", "one"), {"SINEW_THREADS=1"}).exit_code, 0);
  ASSERT_EQ(run_sinew(command("text.txt", "three"), {"SINEW_THREADS=3"}).exit_code, 0);
  for (const auto& entry : fs::directory_iterator(dir / "one"))
    EXPECT_TRUE(slurp(entry.path()) == slurp(dir / "three" / entry.path().filename())) << entry.path();
}

TEST_F(DataCommand, BadInput) {
  expect_refused(command("nothing.txt", "out"), "nothing.txt: no such file or directory");
  spit(dir / "empty.txt", "");
  expect_refused(command("empty.txt", "out"), "the corpus is empty");
  spit(dir / "bad.jsonl", "{\"text\":\"a\"}\n{\"text\":\n");
  expect_refused(command("bad.jsonl", "out"), "bad.jsonl:2: not JSON");
  spit(dir / "bad.txt.gz", "not gzip at all");
  expect_refused(command("bad.txt.gz", "out"), "bad.txt.gz: damaged gzip stream");
  expect_refused(command("text.txt", "text.txt/out"), "text.txt");
  arguments.insert(arguments.end(), {"--val-fraction", "0.9"});
  expect_refused(arguments, "--val-fraction: 0.9 is not in [0, 0.5]");
  EXPECT_FALSE(fs::exists(dir / "out"));
}

// A limit on the size of files looks to the writer like a full disk.
TEST_F(DataCommand, FullDiskKeepsWhatIsThere) {
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const rlimit small{16'384, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  const auto full = run_sinew(arguments);
  setrlimit(RLIMIT_FSIZE, &before);
  EXPECT_EQ(full.exit_code, 2);
  EXPECT_THAT(full.error,
              HasSubstr("train-00000.bin: cannot write: File too large; what was saved before is intact"));
  EXPECT_FALSE(fs::exists(dir / "out" / "dataset.json"));
  const auto again = run_sinew(arguments);
  EXPECT_EQ(again.exit_code, 0) << again.error;
}

}  // namespace
}  // namespace sinew::test
