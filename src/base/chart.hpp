// Charts as self-contained SVG: axes, legend and marks (lines, points, bars, spans of time, heat maps).
// The same chart gives the same text on every machine; colours follow the reader's light or dark mode.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

namespace sinew::chart {

struct Axis {
  std::string label{};
  bool log = false;                       // values that are not positive are left out
  std::optional<double> min{}, max{};     // else from the data
  std::vector<std::string> categories{};  // if given, value i is the middle of category i; y goes down
};

// `color` counts through the palette (8 colours, then dashed, then dotted); -1 takes the next unused one.
struct Line {
  std::string name{};            // in the legend, unless empty
  std::vector<double> x{}, y{};  // a value that is not finite interrupts the line
  int color = -1;
  bool faint = false;  // behind: the raw values under a smoothed line
};

struct Points {
  std::string name{};
  std::vector<double> x{}, y{};
  int color = -1;
};

// One bar a category of the x axis, or of the y axis when that one has the categories. Several Bars stand
// side by side.
struct Bars {
  std::string name{};
  std::vector<double> values{};
  int color = -1;
};

// Gantt: bars from `begin` to `end` on row `row` of a y axis with categories. Legend entries by `names`,
// which the spans' `kind` indexes and colours.
struct Span {
  double begin = 0, end = 0;
  std::size_t row = 0, kind = 0;
  std::string text{};  // inside the bar, where it fits
};
struct Spans {
  std::vector<std::string> names{};
  std::vector<Span> spans{};
};

// values[row * columns + column] on two axes with categories; darker is less.
struct HeatMap {
  std::string label{};  // of the values
  std::vector<double> values{};
  bool numbers = true;  // written in the cells, where they fit
};

struct Chart {
  std::string title{}, subtitle{};
  Axis x{}, y{};
  std::vector<Line> lines{};
  std::vector<Points> points{};
  std::vector<Bars> bars{};
  std::optional<Spans> spans{};
  std::optional<HeatMap> heat_map{};
  double width = 760, height = 420;  // pixels
};

// Throws UserError when there is nothing to draw, and Error when sizes do not fit together.
std::string to_svg(const Chart& chart);

// Several charts under one another in one SVG.
std::string to_svg(const std::vector<Chart>& charts);

// --- The parts, for those who draw more.

// Round values (1, 2 or 5 times a power of ten) inside [min, max], about `count` of them.
std::vector<double> nice_ticks(double min, double max, int count, bool log = false);
// The ticks' labels with the fewest digits that tell them apart: 0.25, 1e-05, 20k, 1.5M.
std::vector<std::string> tick_labels(const std::vector<double>& ticks);

// Value to pixel.
struct Scale {
  double min = 0, max = 1, from = 0, to = 1;
  bool log = false;
  bool holds(double value) const;  // finite, and positive on a log scale
  double operator()(double value) const;
};

// Exponential moving average, factor `keep` in [0, 1) of the past, without the bias of a zero start.
std::vector<double> smoothed(const std::vector<double>& values, double keep);

std::string xml_escaped(const std::string& text);

}  // namespace sinew::chart
