#include "plan/validation.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "base/checksum.hpp"
#include "base/error.hpp"
#include "base/files.hpp"
#include "plan/fit.hpp"

namespace sinew::plan {
namespace {

using nlohmann::ordered_json;

const char* measured_name(Measured m) {
  constexpr const char* names[] = {"none", "step time", "tokens/s", "quoted TFLOP/s", "out of memory"};
  return names[static_cast<int>(m)];
}

ordered_json as_json(const Summary& s) {
  return {{"rows", s.rows},
          {"median_abs_error", s.median},
          {"p90_abs_error", s.ninth_decile},
          {"mean_abs_error", s.mean},
          {"share_within_25_percent", s.within_quarter},
          {"mean_log_ratio", s.bias}};
}

struct Group {
  std::string name;
  std::vector<RowError> fitted, left_out;
};

// Other tools publish their errors on these.
bool is_gpt3_on_h100(const PublishedRun& run) {
  const Network& n = run.setup.network;
  return n.layers == 96 && n.hidden == 12288 && run.setup.chip.name.starts_with("H100");
}

std::vector<Group> grouped(const std::vector<PublishedRun>& runs, const std::vector<RowError>& fitted,
                           const std::vector<RowError>& left_out, bool by_source) {
  std::vector<Group> groups;
  std::map<std::string, std::size_t> index;
  const auto add = [&](const std::string& name, std::size_t i) {
    if (name.empty()) return;
    const auto [found, fresh] = index.try_emplace(name, groups.size());
    if (fresh) groups.push_back({name, {}, {}});
    groups[found->second].fitted.push_back(fitted[i]);
    if (!left_out.empty()) groups[found->second].left_out.push_back(left_out[i]);
  };
  for (std::size_t i = 0; i < runs.size(); ++i) add(by_source ? runs[i].source : runs[i].sweep, i);
  for (std::size_t i = 0; i < runs.size() && !by_source; ++i)
    if (is_gpt3_on_h100(runs[i])) add("GPT-3 175B on H100", i);
  return groups;
}

std::string group_row(const Group& g, bool markdown, bool ranks) {
  const Summary f = summarise(g.fitted), l = summarise(g.left_out.empty() ? g.fitted : g.left_out);
  if (f.rows == 0) return "";
  const std::string rank =
      !ranks || f.rows < 4
          ? ""
          : fmt::format("{:.2f}", rank_correlation(g.left_out.empty() ? g.fitted : g.left_out));
  const char* form = markdown ? "| {} | {} | {:.1f} % | {:.1f} % | {:.1f} % | {:.0f} % | {} |\n"
                              : "{:<64.64} {:>5} {:>8.1f}% {:>8.1f}% {:>8.1f}% {:>8.0f}% {:>6}\n";
  return fmt::format(fmt::runtime(form), g.name, f.rows, 100 * f.median, 100 * l.median, 100 * l.mean,
                     100 * l.within_quarter, rank);
}

std::string tables(const std::vector<PublishedRun>& runs, const std::vector<RowError>& fitted,
                   const std::vector<RowError>& left_out, const ValidationOptions& o) {
  std::string out;
  const auto title = [&](const char* name) {
    out += o.markdown ? fmt::format(
                            "\n| {} | runs | median error | source left out: median | mean | within 25 % | "
                            "rank correlation |\n|---|---|---|---|---|---|---|\n",
                            name)
                      : fmt::format("\n{:<64} {:>5} {:>9} {:>9} {:>9} {:>9} {:>6}\n", name, "runs", "median",
                                    left_out.empty() ? "median" : "left out", "mean", "in 25 %", "rank");
  };
  title("all");
  out += group_row({"all runs with a step time or tokens/s", fitted, left_out}, o.markdown, false);
  title("sweeps");
  for (const Group& g : grouped(runs, fitted, left_out, false)) out += group_row(g, o.markdown, true);
  title("sources");
  for (const Group& g : grouped(runs, fitted, left_out, true)) out += group_row(g, o.markdown, false);
  return out;
}

std::string row_table(const std::vector<PublishedRun>& runs, const std::vector<RowError>& fitted,
                      const std::vector<RowError>& left_out) {
  std::string out = fmt::format("{:<64} {:>10} {:>10} {:>8} {:>8}  {}\n", "run", "predicted", "measured",
                                "error", left_out.empty() ? "" : "left out", "measured as");
  for (std::size_t i = 0; i < runs.size(); ++i)
    out += fmt::format("{:<64.64} {:>9.3f}s {:>9.3f}s {:>7.1f}% {:>8}  {}{}\n", runs[i].name,
                       fitted[i].predicted, fitted[i].measured, 100 * fitted[i].error,
                       left_out.empty() ? "" : fmt::format("{:.1f}%", 100 * left_out[i].error),
                       measured_name(runs[i].measured), runs[i].note.empty() ? "" : "; " + runs[i].note);
  return out;
}

ordered_json document(const std::vector<PublishedRun>& runs, const std::vector<RowError>& fitted,
                      const std::vector<RowError>& left_out, const Constants& k) {
  ordered_json doc;
  doc["rows"] = ordered_json::array();
  for (std::size_t i = 0; i < runs.size(); ++i) {
    const Setup& s = runs[i].setup;
    const StepPrediction p = predict_run(runs[i], k);
    ordered_json row = {{"name", runs[i].name},
                        {"source", runs[i].source},
                        {"predicted_step_time_s", p.seconds},
                        {"predicted_tokens_per_s", p.tokens_per_second},
                        {"predicted_tokens_per_s_per_accel", p.tokens_per_second / s.count},
                        {"predicted_mfu", p.mfu},
                        {"predicted_memory_gb", predict_memory(s, k).total() / 1e9},
                        {"measured_as", measured_name(runs[i].measured)},
                        {"counted", fitted[i].counted}};
    if (fitted[i].measured > 0) {
      row["measured_step_time_s"] = fitted[i].measured;
      row["error"] = fitted[i].error;
      if (!left_out.empty()) row["error_source_left_out"] = left_out[i].error;
    }
    if (!runs[i].note.empty()) row["note"] = runs[i].note;
    doc["rows"].push_back(row);
  }
  doc["summary"] = as_json(summarise(fitted));
  if (!left_out.empty()) doc["summary_source_left_out"] = as_json(summarise(left_out));
  for (const bool by_source : {false, true}) {
    ordered_json& list = doc[by_source ? "sources" : "sweeps"];
    list = ordered_json::array();
    for (const Group& g : grouped(runs, fitted, left_out, by_source)) {
      ordered_json one = {{"name", g.name}, {"fitted", as_json(summarise(g.fitted))}};
      if (!left_out.empty()) one["source_left_out"] = as_json(summarise(g.left_out));
      one["rank_correlation"] = rank_correlation(left_out.empty() ? g.fitted : g.left_out);
      list.push_back(one);
    }
  }
  return doc;
}

std::string checksum(const std::filesystem::path& path) {
  const std::string text = read_file(path, 1 << 28);
  return hex64(xxh3(text.data(), text.size()));
}

}  // namespace

std::string validate_runs(const std::filesystem::path& path, const ValidationOptions& o) {
  const Constants& k = fitted_constants();
  std::vector<PublishedRun> runs = read_runs(path);
  require(!runs.empty(), "{}: no runs in it", path.string());
  for (PublishedRun& run : runs) assume_layout(run, k);
  const std::vector<RowError> fitted = errors(runs, k);
  const bool own = checksum(path) == fitted_on();
  const std::vector<RowError> left_out =
      own && o.leave_one_out ? leave_one_source_out(runs, k) : std::vector<RowError>{};
  if (o.json) return document(runs, fitted, left_out, k).dump(1) + "\n";
  std::string out;
  if (o.rows) out += row_table(runs, fitted, left_out) + "\n";
  const auto uncounted =
      std::count_if(fitted.begin(), fitted.end(), [](const RowError& r) { return !r.counted; });
  out += fmt::format(
      "{} runs predicted; {} give a step time or tokens/s and are counted, {} only a quoted TFLOP/s, MFU or "
      "that memory ran out.\n{}\n",
      runs.size(), runs.size() - static_cast<std::size_t>(uncounted), uncounted,
      own ? "The constants were fitted on this file; `left out`: predicted by constants fitted without the "
            "run's source."
          : "The constants were fitted on another file: none of these errors was minimised.");
  return out + tables(runs, fitted, left_out, o);
}

std::string fit_runs(const std::filesystem::path& path, int rounds) {
  std::vector<PublishedRun> runs = read_runs(path);
  Constants k = prior_constants();
  for (PublishedRun& run : runs) assume_layout(run, k);
  k = fit_constants(runs, k, rounds);
  return write_constants(k, fmt::format("sinew plan fit {}: {} runs", path.filename().string(), runs.size()),
                         checksum(path));
}

}  // namespace sinew::plan
