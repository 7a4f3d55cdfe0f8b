// metrics.jsonl of a training run: one JSON object a line.
#include <cmath>

#include "base/error.hpp"
#include "base/files.hpp"
#include "base/text.hpp"
#include "inspect/readers.hpp"

namespace sinew {
namespace {

struct Series {
  std::size_t count = 0;
  double first = 0, last = 0, least = INFINITY;
  void add(double value) {
    if (count++ == 0) first = value;
    last = value;
    least = std::min(least, value);
  }
};

}  // namespace

Report inspect_metrics(const std::filesystem::path& path) {
  const MappedFile file(path);
  const std::string_view text(reinterpret_cast<const char*>(file.data()), file.size());
  require(text.empty() || text.back() == '\n', "{}: the last line is cut off", path.string());
  std::map<std::string, Series> series;
  std::size_t number = 0;
  for (std::size_t begin = 0; begin < text.size();) {
    const auto end = text.find('\n', begin);
    const Json row = Json::parse(text.substr(begin, end - begin), nullptr, false);
    ++number;
    require(row.is_object(), "{}: line {} is not a JSON object", path.string(), number);
    for (const auto& [key, value] : row.items())
      if (value.is_number()) series[key].add(value.get<double>());
    begin = end + 1;
  }
  require(number > 0, "{}: no metrics in it", path.string());
  ReportBuilder report(path, fmt::format("metrics of a run, {} lines", with_commas(number)));
  report.json["lines"] = number;
  report.line("  {:<28} {:>9} {:>13} {:>13} {:>13}", "name", "values", "first", "last", "least");
  for (const auto& [name, values] : series) {
    report.line("  {:<28} {:>9} {:>13.6g} {:>13.6g} {:>13.6g}", name, values.count, values.first, values.last,
                values.least);
    report.json["series"][name] = {
        {"values", values.count}, {"first", values.first}, {"last", values.last}, {"least", values.least}};
  }
  return report.finish();
}

}  // namespace sinew
