#include "inspect/trace.hpp"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "base/trace_file.hpp"
#include "support/support.hpp"

namespace sinew {
namespace {

using test::TempDir;

SpanEvent event(const char* name, SpanKind kind, std::int64_t begin, std::int64_t end) {
  return {name, kind, begin, end};
}

TEST(Trace, JoinsTheRanksIntoOneChromeTrace) {
  const TempDir dir;
  std::filesystem::create_directories(dir / "trace");
  for (const int rank : {1, 0}) {
    TraceFile file(dir / ("trace/rank-0000" + std::to_string(rank) + ".jsonl"), rank, "pipeline");
    const std::vector<SpanEvent> events{event("wait", SpanKind::bubble, 2000, 5000),
                                        event("forward \"0\"", SpanKind::compute, 1000, 9000),
                                        event("update", SpanKind::optimizer, 9000, 10000)};
    file.write(events);
  }
  const auto report = merge_traces(dir.path(), dir / "out.json");
  ASSERT_EQ(report.ranks.size(), 2U);
  EXPECT_EQ(report.ranks[1].rank, 1);
  EXPECT_NEAR(report.ranks[0].totals.of(SpanKind::compute), 5e-6, 1e-15);
  EXPECT_NEAR(report.ranks[0].totals.of(SpanKind::bubble), 3e-6, 1e-15);
  EXPECT_NEAR(report.ranks[0].totals.of(SpanKind::optimizer), 1e-6, 1e-15);
  EXPECT_NEAR(report.ranks[0].seconds, 9e-6, 1e-15);
  const auto trace = nlohmann::json::parse(test::slurp(dir / "out.json"));
  int spans = 0, names = 0;
  for (const auto& e : trace["traceEvents"]) {
    if (e["ph"] == "X") {
      ++spans;
      EXPECT_GE(e["ts"].get<double>(), 0);
      EXPECT_TRUE(e["dur"] == 3.0 || e["dur"] == 8.0 || e["dur"] == 1.0) << e;
    }
    if (e["name"] == "process_name") {
      ++names;
      EXPECT_EQ(e["args"]["name"], "rank " + std::to_string(e["pid"].get<int>()) + " (pipeline)");
    }
  }
  EXPECT_EQ(spans, 6);
  EXPECT_EQ(names, 2);
  EXPECT_EQ(nlohmann::json::parse(report.json)["ranks"][0]["spans"], 3);
}

TEST(Trace, DropsALineCutShortAndRefusesWhatIsNoTrace) {
  const TempDir dir;
  EXPECT_THROW(merge_traces(dir.path(), dir / "out.json"), UserError);
  std::filesystem::create_directories(dir / "trace");
  const auto file = dir / "trace/rank-00000.jsonl";
  const std::string head = R"({"rank":0,"label":"","wall":1000,"steady":10})"
                           "\n";
  test::spit(file, head + R"(["a","compute",20,5])"
                          "\n"
                          R"(["b","comp)");
  EXPECT_EQ(merge_traces(dir.path(), dir / "out.json").ranks[0].events, 1U);
  for (const char* bad : {R"(["a","nothing",20,5])", R"(["a","compute",-1,5])", R"(["a","compute",20,-5])",
                          "7", R"(["a","compute",20])", R"(["a","compute",20,9223372036854775807])"}) {
    test::spit(file, head + bad + "\n");
    EXPECT_THROW(merge_traces(dir.path(), dir / "out.json"), UserError) << bad;
  }
  for (const char* bad : {"", "[]\n",
                          R"({"rank":-1,"wall":1,"steady":1})"
                          "\n"}) {
    test::spit(file, bad);
    EXPECT_THROW(merge_traces(dir.path(), dir / "out.json"), UserError) << bad;
  }
}

}  // namespace
}  // namespace sinew
