#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support/support.hpp"

namespace sinew::test {
namespace {

TEST(PlotCommand, DrawsAndRefuses) {
  const TempDir dir;
  spit(dir / "metrics.jsonl", "{\"step\":1,\"loss\":3}\n{\"step\":2,\"loss\":2}\n");
  const std::string out = (dir / "curves.svg").string();
  const auto run = run_sinew({"plot", dir.path().string(), "--out", out, "--title", "Two steps"});
  EXPECT_EQ(run.exit_code, 0) << run.error;
  EXPECT_THAT(slurp(out), testing::HasSubstr("Two steps"));
  EXPECT_EQ(run_sinew({"plot", dir.path().string(), "--metric", "val_loss", "--out", out}).exit_code, 2);
  EXPECT_EQ(run_sinew({"plot", (dir / "nothing").string(), "--out", out}).exit_code, 2);
  EXPECT_EQ(run_sinew({"plot", dir.path().string(), "--out", (dir / "no/folder.svg").string()}).exit_code, 2);
  EXPECT_THAT(slurp(out), testing::HasSubstr("Two steps"));  // what was there is still there
}

}  // namespace
}  // namespace sinew::test
