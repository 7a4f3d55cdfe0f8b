#include "base/chart.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <regex>

#include "base/error.hpp"
#include "support/property.hpp"

namespace sinew::chart {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

std::size_t count(const std::string& text, const std::string& what) {
  std::size_t n = 0;
  for (auto at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++n;
  return n;
}

// Every element closed, in order; attributes quoted; no stray < or &.
bool well_formed(const std::string& svg) {
  static const std::regex token(
      "<(/?)([a-zA-Z]+)((?: [a-zA-Z0-9:-]+=\"[^\"<&]*\")*)(/?)>|&(amp|lt|gt|quot);|[^<&]+");
  std::vector<std::string> open;
  std::size_t at = 0;
  for (std::sregex_iterator it(svg.begin(), svg.end(), token), end; it != end; ++it) {
    const auto& match = *it;
    if (static_cast<std::size_t>(match.position()) != at) return false;
    at += static_cast<std::size_t>(match.length());
    if (!match[2].matched) continue;
    if (match[1].length() > 0) {
      if (open.empty() || open.back() != match[2]) return false;
      open.pop_back();
    } else if (match[4].length() == 0) {
      open.push_back(match[2]);
    }
  }
  return at == svg.size() && open.empty();
}

TEST(Ticks, RoundValues) {
  EXPECT_THAT(nice_ticks(0, 100, 5), ElementsAre(0, 20, 40, 60, 80, 100));
  EXPECT_THAT(tick_labels(nice_ticks(-0.31, 0.32, 3)), ElementsAre("-0.2", "0", "0.2"));
  EXPECT_THAT(tick_labels(nice_ticks(1.1, 4.3, 4)), ElementsAre("2", "3", "4"));
  EXPECT_THAT(tick_labels(nice_ticks(0, 25'000, 3)), ElementsAre("0", "10k", "20k"));
  EXPECT_THAT(tick_labels(nice_ticks(0, 2.1e9, 2)), ElementsAre("0", "1B", "2B"));
  EXPECT_THAT(tick_labels(nice_ticks(1e-6, 1e-3, 4, true)), ElementsAre("1e-06", "1e-05", "0.0001", "0.001"));
  EXPECT_THAT(nice_ticks(1, 1000, 6, true), ElementsAre(1, 10, 100, 1000));
  EXPECT_THAT(tick_labels(nice_ticks(1, 12, 6, true)), ElementsAre("1", "2", "5", "10"));
}

PROPERTY(Ticks, LieInsideAndAreEven) {
  const double min = test::draw(-1'000'000, 1'000'000) / 1000.0;
  const double width = test::draw(1, 1'000'000) / 100.0;
  const int wanted = test::draw(2, 12);
  const auto ticks = nice_ticks(min, min + width, wanted);
  HOLDS(!ticks.empty());
  HOLDS(ticks.size() <= 2u * static_cast<std::size_t>(wanted) + 1);
  for (std::size_t i = 0; i < ticks.size(); ++i) {
    HOLDS(ticks[i] >= min - 1e-6 * width && ticks[i] <= min + width * (1 + 1e-6));
    if (i > 1) HOLDS(std::abs((ticks[i] - ticks[i - 1]) - (ticks[1] - ticks[0])) < 1e-6 * width);
  }
  const auto labels = tick_labels(ticks);
  for (std::size_t i = 1; i < labels.size(); ++i) HOLDS(labels[i] != labels[i - 1]);
}

TEST(Scale, LinearAndLogarithmic) {
  const Scale linear{.min = 0, .max = 10, .from = 100, .to = 200};
  EXPECT_DOUBLE_EQ(linear(2.5), 125);
  const Scale log{.min = 1, .max = 100, .from = 0, .to = 10, .log = true};
  EXPECT_DOUBLE_EQ(log(10), 5);
  EXPECT_FALSE(log.holds(0));
  EXPECT_FALSE(linear.holds(NAN));
}

TEST(Smoothed, KeepsConstantsAndGaps) {
  EXPECT_THAT(smoothed({3, 3, 3}, 0.9), testing::Each(testing::DoubleNear(3, 1e-12)));
  const auto curve = smoothed({1, NAN, 2}, 0.5);
  EXPECT_EQ(curve[0], 1);
  EXPECT_TRUE(std::isnan(curve[1]));
  EXPECT_NEAR(curve[2], (0.5 * 1 + 2) / 1.5, 1e-12);
}

Chart lines() {
  Chart chart{.title = "A < B & \"C\"", .x = {.label = "step"}, .y = {.label = "loss"}};
  chart.lines = {{.name = "one", .x = {0, 1, 2, 3}, .y = {4, 3, NAN, 2}},
                 {.name = "two", .x = {0, 3}, .y = {5, 1}}};
  return chart;
}

TEST(Svg, LinesAxesAndLegend) {
  const std::string svg = to_svg(lines());
  EXPECT_TRUE(well_formed(svg));
  EXPECT_THAT(svg, HasSubstr("A &lt; B &amp; &quot;C&quot;"));
  for (const char* text : {">one<", ">two<", ">step<", ">loss<"}) EXPECT_THAT(svg, HasSubstr(text));
  EXPECT_EQ(count(svg, "<path"), 2u);
  EXPECT_THAT(svg, HasSubstr("prefers-color-scheme:dark"));
  EXPECT_THAT(svg, Not(HasSubstr("http://www.w3.org/1999")));  // needs nothing from outside
  EXPECT_EQ(svg, to_svg(lines()));
  // The value that is not a number interrupts the first line: two moves of the pen.
  const auto path = svg.substr(svg.find("<path"), svg.find("/>", svg.find("<path")) - svg.find("<path"));
  EXPECT_EQ(count(path, "M"), 2u);
}

TEST(Svg, EndsOfALineAreWhereTheyBelong) {
  Chart chart;
  chart.x = {.min = 0, .max = 10};
  chart.y = {.min = 0, .max = 1};
  chart.lines = {{.name = "", .x = {0, 10}, .y = {0, 1}}};
  const std::string svg = to_svg(chart);
  std::smatch m;
  ASSERT_TRUE(std::regex_search(svg, m, std::regex("d=\"M([0-9.]+) ([0-9.]+)L([0-9.]+) ([0-9.]+)\"")));
  EXPECT_EQ(std::stod(m[3]), chart.width - 18);
  EXPECT_EQ(std::stod(m[2]), chart.height - 28);
  EXPECT_EQ(std::stod(m[4]), 14);
}

TEST(Svg, LongLinesStaySmall) {
  Chart chart;
  chart.lines.push_back({.name = "long", .x = {}, .y = {}});
  for (int i = 0; i < 200'000; ++i) {
    chart.lines[0].x.push_back(i);
    chart.lines[0].y.push_back(i == 123'456 ? 50 : i % 7);
  }
  const std::string svg = to_svg(chart);
  EXPECT_LT(svg.size(), 100'000u);
  EXPECT_THAT(svg, HasSubstr(">50<"));  // the spike set the axis
}

TEST(Svg, BarsOfEitherDirection) {
  Chart chart{.title = "bars", .x = {.categories = {"a", "b", "c"}}, .y = {.label = "GB/s"}};
  chart.bars = {{.name = "now", .values = {1, 2, 3}}, {.name = "before", .values = {3, 2, -1}}};
  const std::string svg = to_svg(chart);
  EXPECT_TRUE(well_formed(svg));
  EXPECT_EQ(count(svg, "class=\"c0\"/>"), 3u);
  EXPECT_EQ(count(svg, "class=\"c1\"/>"), 3u);
  std::swap(chart.x, chart.y);
  EXPECT_EQ(count(to_svg(chart), "class=\"c0\"/>"), 3u);
}

TEST(Svg, SpansAndHeatMaps) {
  Chart gantt{.title = "schedule", .x = {.label = "time"}, .y = {.categories = {"rank 0", "rank 1"}}};
  gantt.spans = Spans{{"forward", "backward"}, {{0, 1, 0, 0, "0"}, {1, 3, 1, 1, ""}}};
  Chart heat{.title = "load", .x = {.categories = {"e0", "e1"}}, .y = {.categories = {"layer 1"}}};
  heat.heat_map = HeatMap{"tokens", {1, 2}};
  const std::string svg = to_svg({gantt, heat});
  EXPECT_TRUE(well_formed(svg));
  EXPECT_EQ(count(svg, "class=\"c0 h\""), 1u);
  EXPECT_EQ(count(svg, "class=\"c1 h\""), 1u);
  EXPECT_THAT(svg, HasSubstr("#440154"));  // viridis, its first
  EXPECT_THAT(svg, HasSubstr("#fde725"));  // and its last
  heat.heat_map->values = {1, 2, 3};
  EXPECT_THROW(to_svg(heat), Error);
}

TEST(Svg, NothingToDrawIsAnError) {
  Chart chart;
  EXPECT_THROW(to_svg(chart), UserError);
  chart.lines = {{.name = "", .x = {1}, .y = {NAN}}};
  EXPECT_THROW(to_svg(chart), UserError);
  chart.lines = {{.name = "", .x = {1, 2}, .y = {1}}};
  EXPECT_THROW(to_svg(chart), Error);
  chart.lines = {{.name = "", .x = {1}, .y = {5}}};  // one value is something
  EXPECT_TRUE(well_formed(to_svg(chart)));
}

}  // namespace
}  // namespace sinew::chart
