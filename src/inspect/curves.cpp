#include "inspect/curves.hpp"

#include <fmt/format.h>

#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "base/chart.hpp"
#include "base/error.hpp"
#include "base/files.hpp"
#include "base/text.hpp"

namespace sinew {
namespace {

using Json = nlohmann::json;
constexpr std::size_t kSmoothed = 20;  // fewer points (evaluations) are no noise to smooth

fs::path metrics_file(const fs::path& run) {
  require(fs::exists(run), "{}: no such run", run.string());
  if (!fs::is_directory(run)) return run;
  require(fs::exists(run / "metrics.jsonl"),
          "{}: no metrics.jsonl in this directory; is it a run of `sinew train`?", run.string());
  return run / "metrics.jsonl";
}

// A number, or how a number that JSON does not have is written.
bool number(const Json& row, const std::string& key, double* value) {
  const auto found = row.find(key);
  if (found == row.end()) return false;
  if (found->is_number())
    *value = found->get<double>();
  else if (found->is_null() || *found == "NaN" || *found == "Infinity" || *found == "-Infinity")
    *value = NAN;
  else
    return false;
  return true;
}

std::string label_of(const std::string& metric) {
  static const std::map<std::string, std::string> words{{"loss", "training loss (nats a token)"},
                                                        {"val_loss", "validation loss (nats a token)"},
                                                        {"val_bits_per_byte", "validation bits per byte"},
                                                        {"lr", "learning rate"},
                                                        {"grad_norm", "gradient norm"},
                                                        {"tokens_per_second", "tokens a second"}};
  const auto found = words.find(metric);
  return found != words.end() ? found->second : metric;
}

// The shortest ends of the paths that tell the runs apart.
std::vector<std::string> short_names(const std::vector<fs::path>& runs) {
  std::vector<fs::path> paths;
  for (const auto& run : runs) {
    fs::path path = run.lexically_normal();
    if (path.filename() == "metrics.jsonl") path = path.parent_path();
    if (!path.has_filename()) path = path.parent_path();
    paths.push_back(path.empty() ? fs::path(".") : path);
  }
  for (std::size_t parts = 1;; ++parts) {
    std::vector<std::string> names;
    bool whole = true;
    for (const auto& path : paths) {
      fs::path end = path.filename(), rest = path.parent_path();
      for (std::size_t i = 1; i < parts && rest.has_filename(); ++i, rest = rest.parent_path())
        end = rest.filename() / end;
      whole &= !rest.has_filename();
      names.push_back(end.string());
    }
    if (whole || std::set<std::string>(names.begin(), names.end()).size() == names.size()) return names;
  }
}

chart::Chart draw(const PlotOptions& o, const std::string& metric, const std::vector<std::string>& names) {
  chart::Chart chart;
  chart.x = {.label = o.x, .log = o.log_x, .min = {}, .max = {}, .categories = {}};
  chart.y = {.label = label_of(metric), .log = o.log_y, .min = {}, .max = {}, .categories = {}};
  std::vector<chart::Line> raw;
  for (std::size_t i = 0; i < o.runs.size(); ++i) {
    const Curve curve = read_curve(o.runs[i], metric, o.x);
    const int color = static_cast<int>(i);
    const bool smooth = o.smooth > 0 && curve.y.size() >= kSmoothed;
    if (smooth) {
      raw.push_back({.name = "", .x = curve.x, .y = curve.y, .color = color, .faint = true});
      chart.subtitle = fmt::format("moving average, {:g} of the past; raw values faint", o.smooth);
    }
    const auto y = smooth ? chart::smoothed(curve.y, o.smooth) : curve.y;
    chart.lines.push_back(
        {.name = fmt::format("{} ({:.4g})", names[i], y.back()), .x = curve.x, .y = y, .color = color});
  }
  chart.lines.insert(chart.lines.begin(), raw.begin(), raw.end());
  return chart;
}

}  // namespace

Curve read_curve(const fs::path& run, const std::string& metric, const std::string& x) {
  const fs::path path = metrics_file(run);
  const MappedFile file(path);
  const std::string_view text(reinterpret_cast<const char*>(file.data()), file.size());
  std::map<double, double> points;
  std::set<std::string> keys;
  std::size_t line = 0;
  for (std::size_t begin = 0; begin < text.size();) {
    const auto newline = text.find('\n', begin);
    const auto content = text.substr(begin, newline - begin);
    ++line;
    begin = newline == std::string_view::npos ? text.size() : newline + 1;
    if (content.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    const Json row = Json::parse(content, nullptr, false);
    if (!row.is_object() && newline == std::string_view::npos) break;
    require(row.is_object(), "{}:{}: not a JSON object; is this a metrics.jsonl?", path.string(), line);
    for (const auto& [key, value] : row.items())
      if (value.is_number()) keys.insert(key);
    double at = 0, value = 0;
    if (number(row, metric, &value) && number(row, x, &at) && std::isfinite(at)) points[at] = value;
  }
  require(!keys.empty(), "{}: no metrics in it", path.string());
  const std::vector<std::string> known(keys.begin(), keys.end());
  for (const auto& key : {metric, x})
    require(keys.contains(key), "{}: no line has \"{}\"{}; there are: {}", path.string(), key,
            did_you_mean(key, known), join(known, ", "));
  require(!points.empty(), "{}: no line has both \"{}\" and \"{}\"", path.string(), metric, x);
  Curve curve;
  for (const auto& [at, value] : points) {
    curve.x.push_back(at);
    curve.y.push_back(value);
  }
  return curve;
}

std::string plot_svg(const PlotOptions& o) {
  require(!o.runs.empty() && !o.metrics.empty(), "plot: name at least one run and one metric");
  require(o.names.empty() || o.names.size() == o.runs.size(), "plot: {} names for {} runs", o.names.size(),
          o.runs.size());
  require(o.smooth >= 0 && o.smooth < 1, "plot: --smooth {} is not in [0, 1)", o.smooth);
  const auto names = o.names.empty() ? short_names(o.runs) : o.names;
  std::vector<chart::Chart> charts;
  for (const auto& metric : o.metrics) charts.push_back(draw(o, metric, names));
  charts.front().title = !o.title.empty() ? o.title : label_of(o.metrics.front());
  return chart::to_svg(charts);
}

}  // namespace sinew
