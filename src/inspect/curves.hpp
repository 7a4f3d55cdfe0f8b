// Curves of training runs, out of their metrics.jsonl.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace sinew {

struct Curve {
  std::vector<double> x{}, y{};  // in the order of x; a value written twice (after a resume) is its last
};

// Reads `metric` over `x` ("step", or another metric of the same lines) from a run's directory or its
// metrics.jsonl. Lines without the metric are passed over; a last line still being written too. Throws
// UserError: no file, a line that is no JSON object (file:line), a metric that no line has.
Curve read_curve(const std::filesystem::path& run, const std::string& metric, const std::string& x = "step");

struct PlotOptions {
  std::vector<std::filesystem::path> runs{};
  std::vector<std::string> names{};    // for the legend; else the runs' directories
  std::vector<std::string> metrics{};  // one chart each
  std::string x = "step", title{};
  double smooth = 0;  // [0, 1): moving average over the faint raw curve, where it has 20 points or more
  bool log_x = false, log_y = false;
};

std::string plot_svg(const PlotOptions& options);

}  // namespace sinew
