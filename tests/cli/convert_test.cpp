#include <gtest/gtest.h>

#include "support/support.hpp"

namespace sinew {

TEST(ConvertCommand, Llama2cToHuggingFace) {
  SINEW_NEED_DATA();
  const test::TempDir dir;
  const auto source = (test::data_dir() / "models" / "stories260K" / "stories260K.bin").string();
  const auto out = (dir / "out").string();
  const test::Run run = test::run_sinew({"convert", source, out});
  ASSERT_EQ(run.exit_code, 0) << run.error;
  EXPECT_EQ(run.output, out + "\n");
  for (const char* name : {"config.json", "model.safetensors", "tokenizer.model", "tokenizer_config.json"}) {
    EXPECT_TRUE(test::fs::exists(dir / "out" / name)) << name;
  }
  const test::Run again = test::run_sinew({"convert", source, out});
  EXPECT_EQ(again.exit_code, 2);
  EXPECT_NE(again.error.find("--force"), std::string::npos);
}

TEST(ConvertCommand, BadInputIsOneLineAndExitCode2) {
  const test::TempDir dir;
  test::spit(dir / "x.bin", "not a model");
  for (const auto& source : {dir / "x.bin", dir / "none", dir.path()}) {
    const test::Run run = test::run_sinew({"convert", source.string(), (dir / "out").string()});
    EXPECT_EQ(run.exit_code, 2);
    EXPECT_EQ(std::count(run.error.begin(), run.error.end(), '\n'), 1) << run.error;
    EXPECT_FALSE(test::fs::exists(dir / "out"));
  }
}

}  // namespace sinew
