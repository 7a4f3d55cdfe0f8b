// sinew generate, on a reference model with a tokenizer of our own.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/text.hpp"
#include "support/support.hpp"

namespace sinew::test {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

// The Mixtral reference model beside a byte-level BPE of 320 tokens.
void make_model(const fs::path& directory) {
  fs::create_directories(directory);
  for (const char* name : {"config.json", "model.safetensors"}) {
    fs::copy_file(data_dir() / "golden" / "mixtral" / name, directory / name);
  }
  const auto run =
      run_sinew({"tokenizer", "train", (data_dir() / "text" / "tinystories_sample_c.txt").string(),
                 "--vocab-size", "320", "--out", (directory / "tokenizer.json").string()});
  ASSERT_EQ(run.exit_code, 0) << run.error;
}

TEST(Generate, SameTextWithAndWithoutCacheAndForOneSeed) {
  SINEW_NEED_DATA();
  const TempDir dir;
  make_model(dir / "model");
  const std::vector<std::string> command{"generate",  dir / "model",  "--prompt",
                                         "Once upon", "--max-tokens", "40"};
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.begin(), command.begin(), command.end());
    auto run = run_sinew(more);
    EXPECT_EQ(run.exit_code, 0) << run.error;
    EXPECT_TRUE(valid_utf8(run.output));
    return run.output;
  };
  const auto greedy = with({});
  EXPECT_THAT(greedy, StartsWith("Once upon"));
#ifdef SINEW_TRAIN
  EXPECT_EQ(with({"--no-cache"}), greedy);
#endif
  const auto json =
      nlohmann::json::parse(with({"--json", "--temperature", "1", "--top-p", "0.95", "--seed", "7"}));
  EXPECT_EQ(json["tokens"].size(), 40U);
  EXPECT_EQ(json["finish_reason"], "length");
  EXPECT_EQ(with({"--temperature", "1", "--top-p", "0.95", "--seed", "7"}),
            json["text"].get<std::string>() + "\n");
}

// llama2.c's own program wrote the expected text.
TEST(Generate, Stories260KConvertedTellsItsStory) {
  SINEW_NEED_DATA();
  const TempDir dir;
  const auto source = data_dir() / "models" / "stories260K";
  ASSERT_EQ(run_sinew({"convert", (source / "stories260K.bin").string(), dir / "model"}).exit_code, 0);
  ASSERT_EQ(run_sinew({"convert", dir / "model", dir / "model.gguf"}).exit_code, 0);
  for (const std::string model : {dir / "model", dir / "model.gguf"}) {
    const auto run = run_sinew({"generate", model, "--max-tokens", "200"});
    EXPECT_EQ(run.exit_code, 0) << run.error;
    EXPECT_EQ(run.output, slurp(source / "expected_greedy_n200.txt"));
  }
  const auto drafted =
      run_sinew({"generate", dir / "model", "--max-tokens", "200", "--draft", "lookup", "--timings"});
  EXPECT_EQ(drafted.output, slurp(source / "expected_greedy_n200.txt"));
  EXPECT_THAT(drafted.error, HasSubstr("drafted tokens were right"));
#ifdef SINEW_TRAIN
  const auto run = run_sinew({"generate", dir / "model", "--max-tokens", "200", "--torch"});
  EXPECT_EQ(run.output, slurp(source / "expected_greedy_n200.txt")) << run.error;
#endif
}

TEST(Generate, BadInputIsOneLine) {
  const TempDir dir;
  const auto run = run_sinew({"generate", dir / "none", "--prompt", "x"});
  EXPECT_EQ(run.exit_code, 2);
  EXPECT_EQ(std::count(run.error.begin(), run.error.end(), '\n'), 1) << run.error;
  EXPECT_THAT(run_sinew({"generate", dir / "none", "--prompt", "x", "--top-p", "3"}).error,
              HasSubstr("top-p is 3"));
}

}  // namespace
}  // namespace sinew::test
