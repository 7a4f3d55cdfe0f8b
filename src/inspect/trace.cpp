#include "inspect/trace.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>

#include "base/error.hpp"
#include "base/files.hpp"

namespace sinew {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t kLongestLine = 1 << 16;

struct Event {
  std::string name;
  SpanKind kind;
  std::int64_t begin, end;  // nanoseconds of the wall clock
};

struct File {
  int rank;
  std::string label;
  std::vector<Event> events;
};

SpanKind kind_of(const std::string& name) {
  const auto found = std::find(kSpanNames.begin(), kSpanNames.end(), name);
  return static_cast<SpanKind>(found - kSpanNames.begin());
}

std::optional<std::int64_t> whole(const Json& json, const char* key) {
  const auto found = json.find(key);
  if (found == json.end() || !found->is_number_integer()) return {};
  return found->get<std::int64_t>();
}

File read_trace(const fs::path& path) {
  const MappedFile map(path);
  const std::string_view text(reinterpret_cast<const char*>(map.data()), map.size());
  File file{};
  std::int64_t offset = 0;  // of the wall clock over the steady one
  std::size_t number = 0;
  for (std::size_t begin = 0; begin < text.size();) {
    const auto end = text.find('\n', begin);
    if (end == std::string_view::npos) break;  // cut short
    const auto line = text.substr(begin, end - begin);
    begin = end + 1;
    ++number;
    require(line.size() <= kLongestLine, "{}: line {} is too long for a trace", path.string(), number);
    const Json json = Json::parse(line, nullptr, false);
    if (number == 1) {
      const auto rank = whole(json, "rank"), wall = whole(json, "wall"), steady = whole(json, "steady");
      require(json.is_object() && rank && wall && steady && *rank >= 0 && *rank < 1 << 24 && *wall > 0 &&
                  *steady >= 0,
              "{}: is not a trace of `sinew train`", path.string());
      file.rank = static_cast<int>(*rank);
      file.label = json.value("label", "");
      offset = *wall - *steady;
      continue;
    }
    const bool good = json.is_array() && json.size() == 4 && json[0].is_string() && json[1].is_string() &&
                      json[2].is_number_integer() && json[3].is_number_unsigned();
    require(good && kind_of(json[1]) != SpanKind::count, "{}: line {} is not a span", path.string(), number);
    const auto at = json[2].get<std::int64_t>(), length = json[3].get<std::int64_t>();
    constexpr auto kYears = std::int64_t{1} << 61;
    require(at >= 0 && at < kYears && length < kYears, "{}: line {} is out of time", path.string(), number);
    file.events.push_back({json[0], kind_of(json[1]), at + offset, at + offset + length});
  }
  require(number > 0, "{}: is empty", path.string());
  return file;
}

// Spans nest: each takes its time from the one it lies in.
RankTrace totals_of(const File& file) {
  RankTrace out{
      .rank = file.rank, .label = file.label, .events = file.events.size(), .totals = {}, .seconds = 0};
  if (file.events.empty()) return out;
  auto sorted = file.events;
  std::stable_sort(sorted.begin(), sorted.end(), [](const Event& a, const Event& b) {
    return a.begin != b.begin ? a.begin < b.begin : a.end > b.end;
  });
  std::vector<const Event*> open;
  std::int64_t last = sorted.front().end;
  for (const Event& event : sorted) {
    while (!open.empty() && open.back()->end <= event.begin) open.pop_back();
    const auto seconds = static_cast<double>(event.end - event.begin) * 1e-9;
    out.totals.seconds[static_cast<std::size_t>(event.kind)] += seconds;
    if (!open.empty()) out.totals.seconds[static_cast<std::size_t>(open.back()->kind)] -= seconds;
    open.push_back(&event);
    last = std::max(last, event.end);
  }
  out.seconds = static_cast<double>(last - sorted.front().begin) * 1e-9;
  return out;
}

void write_events(const std::vector<File>& files, const fs::path& out) {
  std::int64_t first = INT64_MAX;
  for (const auto& file : files)
    for (const auto& event : file.events) first = std::min(first, event.begin);
  AtomicFile target(out);
  target.write("{\"displayTimeUnit\":\"ms\",\"traceEvents\":[");
  bool comma = false;
  const auto put = [&](const Json& json) {
    target.write(comma ? ",\n" : "\n");
    target.write(json.dump(-1, ' ', false, Json::error_handler_t::replace));
    comma = true;
  };
  for (const auto& file : files) {
    const auto name = file.label.empty() ? fmt::format("rank {}", file.rank)
                                         : fmt::format("rank {} ({})", file.rank, file.label);
    put({{"ph", "M"}, {"name", "process_name"}, {"pid", file.rank}, {"args", {{"name", name}}}});
    put({{"ph", "M"},
         {"name", "process_sort_index"},
         {"pid", file.rank},
         {"args", {{"sort_index", file.rank}}}});
    for (const auto& event : file.events)
      put({{"ph", "X"},
           {"name", event.name},
           {"cat", kSpanNames[static_cast<std::size_t>(event.kind)]},
           {"ts", static_cast<double>(event.begin - first) * 1e-3},
           {"dur", static_cast<double>(event.end - event.begin) * 1e-3},
           {"pid", file.rank},
           {"tid", 0}});
  }
  target.write("\n]}\n");
  target.commit();
}

void describe(TraceReport& report, const fs::path& out) {
  Json json{{"trace", out.string()}, {"ranks", Json::array()}};
  report.text = fmt::format("{:>6} {:>8} {:>10}", "rank", "spans", "seconds");
  for (const auto name : kSpanNames) report.text += fmt::format(" {:>14}", name);
  report.text += "\n";
  for (const auto& rank : report.ranks) {
    Json row{{"rank", rank.rank}, {"label", rank.label}, {"spans", rank.events}, {"seconds", rank.seconds}};
    report.text += fmt::format("{:>6} {:>8} {:>10.4f}", rank.rank, rank.events, rank.seconds);
    for (std::size_t kind = 0; kind < kSpanNames.size(); ++kind) {
      const double seconds = rank.totals.seconds[kind];
      row[std::string(kSpanNames[kind]) + "_seconds"] = seconds;
      report.text +=
          fmt::format(" {:>8.4f} {:>4.0f}%", seconds, rank.seconds > 0 ? 100 * seconds / rank.seconds : 0);
    }
    report.text += "\n";
    json["ranks"].push_back(row);
  }
  report.text += fmt::format("{}: open it at https://ui.perfetto.dev or chrome://tracing\n", out.string());
  report.json = json.dump(2) + "\n";
}

}  // namespace

TraceReport merge_traces(const fs::path& run, const fs::path& out) {
  std::vector<fs::path> paths;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(run / "trace", ignored)) {
    const auto name = entry.path().filename().string();
    if (name.starts_with("rank-") && name.ends_with(".jsonl")) paths.push_back(entry.path());
  }
  require(!paths.empty(), "{}: holds no trace; train with --set log.trace_steps=N to keep one of N steps",
          run.string());
  std::sort(paths.begin(), paths.end());
  std::vector<File> files;
  for (const auto& path : paths) files.push_back(read_trace(path));
  std::stable_sort(files.begin(), files.end(), [](const File& a, const File& b) { return a.rank < b.rank; });
  write_events(files, out);
  TraceReport report;
  for (const auto& file : files) report.ranks.push_back(totals_of(file));
  describe(report, out);
  return report;
}

}  // namespace sinew
