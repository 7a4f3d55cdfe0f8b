#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "support/support.hpp"

namespace sinew::test {
namespace {

TEST(ScheduleCommand, ComparesAllSchedules) {
  const auto run = run_sinew({"schedule", "--ranks", "4", "--micro-batches", "8", "--json"});
  ASSERT_EQ(run.exit_code, 0) << run.error;
  const auto rows = nlohmann::json::parse(run.output);
  ASSERT_EQ(rows.size(), 6u);
  const auto share = [&](std::size_t row) { return rows[row]["bubble_share"].get<double>(); };
  const auto peak = [&](std::size_t row) { return rows[row]["peak_activation"][0].get<double>(); };
  EXPECT_EQ(rows[0]["schedule"], "gpipe");
  EXPECT_EQ(rows[1]["schedule"], "gpipe-flush");
  EXPECT_EQ(rows[2]["schedule"], "1f1b");
  EXPECT_DOUBLE_EQ(rows[0]["makespan"], 33);
  EXPECT_DOUBLE_EQ(share(2), share(0));  // at equal micro-batches
  EXPECT_DOUBLE_EQ(peak(2), peak(1));    // at equal memory
  EXPECT_LT(share(2), share(1));
  for (const std::size_t better : {4u, 5u}) EXPECT_LT(share(better), share(3));
  EXPECT_LT(share(3), share(2));
}

TEST(ScheduleCommand, DrawsTextAndSvg) {
  const TempDir dir;
  const auto run =
      run_sinew({"schedule", "--kind", "zero-bubble", "--show", "--svg", (dir / "a.svg").string()});
  ASSERT_EQ(run.exit_code, 0) << run.error;
  EXPECT_NE(run.output.find("   3  "), std::string::npos);
  EXPECT_NE(slurp(dir / "a.svg").find("</svg>"), std::string::npos);
}

TEST(ScheduleCommand, NonsenseGetsOneLine) {
  for (const std::vector<std::string>& arguments :
       std::vector<std::vector<std::string>>{{"schedule", "--kind", "interlaced"},
                                             {"schedule", "--ranks", "0"},
                                             {"schedule", "--forward", "-1"}}) {
    const auto run = run_sinew(arguments);
    EXPECT_EQ(run.exit_code, 2);
    EXPECT_EQ(std::count(run.error.begin(), run.error.end(), '\n'), 1) << run.error;
  }
}

}  // namespace
}  // namespace sinew::test
