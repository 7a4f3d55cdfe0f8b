#include "inspect/curves.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "base/error.hpp"
#include "base/files.hpp"
#include "support/support.hpp"

namespace sinew {
namespace {

using test::spit;
using test::TempDir;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr const char* kRun =
    "{\"step\":1,\"loss\":5.5,\"tokens\":100}\n"
    "{\"step\":2,\"loss\":4.5,\"tokens\":200}\n"
    "{\"kind\":\"evaluation\",\"step\":2,\"val_loss\":4.75}\n"
    "\n"
    "{\"step\":3,\"loss\":null,\"tokens\":300}\n"
    "{\"step\":2,\"loss\":4.25,\"tokens\":200}\n";

std::string error_of(const fs::path& run, const std::string& metric, const std::string& x = "step") {
  try {
    read_curve(run, metric, x);
  } catch (const UserError& error) {
    return error.what();
  }
  return "no error";
}

TEST(Curves, LastValueOfAStepInTheOrderOfSteps) {
  const TempDir dir;
  spit(dir / "metrics.jsonl", std::string(kRun) + "{\"step\":4,\"lo");  // being written
  const Curve loss = read_curve(dir.path(), "loss");
  EXPECT_THAT(loss.x, ElementsAre(1, 2, 3));
  EXPECT_EQ(loss.y[1], 4.25);
  EXPECT_TRUE(std::isnan(loss.y[2]));
  EXPECT_THAT(read_curve(dir / "metrics.jsonl", "val_loss").x, ElementsAre(2));
  EXPECT_THAT(read_curve(dir.path(), "loss", "tokens").x, ElementsAre(100, 200, 300));
}

TEST(Curves, ErrorsSayWhereAndWhat) {
  const TempDir dir;
  EXPECT_THAT(error_of(dir / "none", "loss"), HasSubstr("no such run"));
  EXPECT_THAT(error_of(dir.path(), "loss"), HasSubstr("no metrics.jsonl in this directory"));
  spit(dir / "metrics.jsonl", kRun);
  EXPECT_THAT(error_of(dir.path(), "los"),
              HasSubstr("no line has \"los\"; did you mean \"loss\"?; there are: loss, step"));
  EXPECT_THAT(error_of(dir.path(), "val_loss", "tokens"), HasSubstr("no line has both"));
  spit(dir / "metrics.jsonl", "{\"step\":1,\"loss\":5}\n{\"step\":2,\"lo\n{\"step\":3,\"loss\":5}\n");
  EXPECT_THAT(error_of(dir.path(), "loss"), HasSubstr("metrics.jsonl:2: not a JSON object"));
  spit(dir / "metrics.jsonl", "");
  EXPECT_THAT(error_of(dir.path(), "loss"), HasSubstr("no metrics in it"));
}

TEST(Curves, PictureNamesRunsApart) {
  const TempDir dir;
  for (const char* run : {"a/run", "b/run"}) {
    fs::create_directories(dir / run);
    spit(dir / run / "metrics.jsonl", kRun);
  }
  PlotOptions options{.runs = {dir / "a/run", dir / "b/run/"}, .metrics = {"loss", "val_loss"}};
  options.smooth = 0.5;
  const std::string svg = plot_svg(options);
  EXPECT_THAT(svg, HasSubstr(">a/run ("));
  EXPECT_THAT(svg, HasSubstr(">b/run ("));
  EXPECT_THAT(svg, HasSubstr("validation loss"));
  EXPECT_EQ(svg, plot_svg(options));
  options.names = {"MoE", "dense"};
  EXPECT_THAT(plot_svg(options), HasSubstr(">dense (4.75)<"));
  options.names = {"one"};
  EXPECT_THROW(plot_svg(options), UserError);
}

TEST(Curves, OnlyLongCurvesAreSmoothed) {
  const TempDir dir;
  std::string text;
  for (int step = 1; step <= 40; ++step) text += fmt::format("{{\"step\":{},\"loss\":{}}}\n", step, step % 2);
  spit(dir / "metrics.jsonl", text + "{\"step\":1,\"val_loss\":4}\n{\"step\":40,\"val_loss\":2}\n");
  PlotOptions options{.runs = {dir.path()}, .metrics = {"loss"}};
  options.smooth = 0.9;
  EXPECT_THAT(plot_svg(options), HasSubstr("moving average, 0.9"));
  options.metrics = {"val_loss"};
  options.names = {"run"};
  EXPECT_THAT(plot_svg(options), testing::Not(HasSubstr("moving average")));
}

}  // namespace
}  // namespace sinew
