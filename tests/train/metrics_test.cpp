#include "train/metrics.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "support/support.hpp"

namespace sinew {
namespace {

Record line(std::int64_t step, double loss) {
  Record record;
  record.add("step", step);
  record.add("loss", loss);
  return record;
}

TEST(Metrics, LinesAreFlatJsonInOrder) {
  Record record = line(3, 0.1);
  record.add("note", "a \"b\" \xff");
  record.add("skipped", true);
  record.add("nan", std::nan(""));
  const std::string text = to_json_line(record);
  EXPECT_EQ(text.substr(0, 23), R"({"step":3,"loss":0.1,"n)");
  const auto parsed = nlohmann::json::parse(text);
  EXPECT_EQ(parsed["loss"].get<double>(), 0.1);
  EXPECT_TRUE(parsed["nan"].is_null());
  EXPECT_EQ(parsed["skipped"], true);
}

TEST(Metrics, TruncationLeavesTheFileOfAnUnbrokenRun) {
  const test::TempDir dir;
  const auto path = dir / "metrics.jsonl";
  truncate_metrics(path, 3);
  EXPECT_FALSE(std::filesystem::exists(path));
  std::string expected;
  {
    MetricsFile file(path);
    for (int step = 1; step <= 6; ++step) file.write(line(step, 1.0 / step));
  }
  for (int step = 1; step <= 4; ++step) expected += to_json_line(line(step, 1.0 / step));
  test::spit(path, test::slurp(path) + R"({"step":7,"lo)");
  truncate_metrics(path, 4);
  EXPECT_EQ(test::slurp(path), expected);
  MetricsFile(path).write(line(5, 0.2));
  EXPECT_EQ(test::slurp(path), expected + to_json_line(line(5, 0.2)));
}

}  // namespace
}  // namespace sinew
