#include "train/lean_report.hpp"

#include <algorithm>
#include <cmath>

#include "base/chart.hpp"
#include "base/error.hpp"
#include "base/text.hpp"

namespace sinew {
namespace {

using Json = nlohmann::ordered_json;

LeanSpread spread_of(const std::vector<double>& values, bool geometric = false) {
  LeanSpread s;
  s.seeds = values.size();
  if (values.empty()) return s;
  for (const double v : values) s.mean += (geometric ? std::log(v) : v) / static_cast<double>(values.size());
  if (geometric) s.mean = std::exp(s.mean);
  const auto [least, most] = std::minmax_element(values.begin(), values.end());
  s.least = *least, s.most = *most;
  return s;
}

std::vector<LossPoint> dense_points(const std::vector<LeanResult>& results) {
  std::vector<LossPoint> points;
  for (const auto& r : results)
    if (r.run.kind == LeanKind::dense) points.push_back({r.compute(), r.loss});
  return points;
}

std::optional<PowerLaw> law_or_none(const std::vector<LossPoint>& points) {
  try {
    return fit_power_law(points);
  } catch (const UserError&) {
    return std::nullopt;
  }
}

std::vector<LeanCell> cells_of(const std::vector<LeanResult>& results) {
  std::vector<LeanCell> cells;
  for (const auto& r : results) {
    const auto known = [&](const LeanCell& c) { return c.kind == r.run.kind && c.size == r.run.size; };
    if (std::none_of(cells.begin(), cells.end(), known))
      cells.push_back({.kind = r.run.kind, .size = r.run.size, .counts = r.counts, .compute = r.compute()});
  }
  for (auto& cell : cells) {
    std::vector<double> losses, bits;
    for (const auto& r : results)
      if (r.run.kind == cell.kind && r.run.size == cell.size) {
        losses.push_back(r.loss);
        bits.push_back(r.bits_per_byte);
      }
    cell.loss = spread_of(losses);
    cell.bits_per_byte = spread_of(bits);
  }
  std::sort(cells.begin(), cells.end(), [](const LeanCell& a, const LeanCell& b) {
    return a.kind != b.kind ? a.kind < b.kind : a.compute < b.compute;
  });
  return cells;
}

LeanEqual equal_of(const LeanCell& cell, const std::vector<LeanResult>& results, const PowerLaw& law) {
  const auto dense = dense_points(results);
  std::vector<double> by_law, between;
  for (const auto& r : results) {
    if (r.run.kind != cell.kind || r.run.size != cell.size) continue;
    if (const auto compute = law.compute(r.loss)) by_law.push_back(*compute / r.compute());
    if (const auto compute = interpolated_compute(dense, r.loss)) between.push_back(*compute / r.compute());
  }
  return {.kind = cell.kind,
          .size = cell.size,
          .by_law = spread_of(by_law, true),
          .between = spread_of(between, true)};
}

std::string words(const LeanSpread& s, std::size_t of) {
  if (s.seeds == 0) return "beyond the dense sizes";
  return fmt::format("{:.2f} ({:.2f} to {:.2f}{})", s.mean, s.least, s.most,
                     s.seeds < of ? fmt::format("; {} of {} seeds, the others beyond", s.seeds, of) : "");
}

const char* title_of(LeanKind kind) {
  switch (kind) {
    case LeanKind::dense:
      return "dense";
    case LeanKind::fine:
      return "7 of 32 experts and 1 shared";
    case LeanKind::top2:
      return "2 of 8 experts";
  }
  return "";
}

Json to_json(const LeanSpread& s) {
  if (s.seeds == 0) return nullptr;
  return {{"mean", s.mean}, {"least", s.least}, {"most", s.most}, {"seeds", s.seeds}};
}

}  // namespace

LeanReport lean_report(const std::vector<LeanResult>& results) {
  LeanReport report{.cells = cells_of(results)};
  report.law = law_or_none(dense_points(results));
  if (!report.law) return report;
  for (const auto& cell : report.cells)
    if (cell.kind != LeanKind::dense) report.equal.push_back(equal_of(cell, results, *report.law));
  return report;
}

std::string lean_markdown(const LeanReport& report) {
  std::string out =
      "| network | hidden x layers | parameters, M | active, M | MFLOP a token | loss, nats a token (seeds) "
      "| "
      "bits per byte |\n|---|---|---|---|---|---|---|\n";
  for (const auto& c : report.cells)
    out += fmt::format("| {} | {} | {:.2f} | {:.3f} | {:.3f} | {:.4f} ({:.4f} to {:.4f}) | {:.4f} |\n",
                       title_of(c.kind), c.size.name(), static_cast<double>(c.counts.total) / 1e6,
                       static_cast<double>(c.counts.active) / 1e6, c.counts.flops_per_token / 1e6,
                       c.loss.mean, c.loss.least, c.loss.most, c.bits_per_byte.mean);
  if (report.equal.empty()) return out;
  out +=
      "\n| network | hidden x layers | dense compute for the same loss, by the law (seeds) | between dense "
      "sizes |\n|---|---|---|---|\n";
  for (const auto& e : report.equal) {
    const auto cell = std::find_if(report.cells.begin(), report.cells.end(),
                                   [&](const LeanCell& c) { return c.kind == e.kind && c.size == e.size; });
    out += fmt::format("| {} | {} | {} | {} |\n", title_of(e.kind), e.size.name(),
                       words(e.by_law, cell->loss.seeds), words(e.between, cell->loss.seeds));
  }
  const PowerLaw& law = *report.law;
  out += fmt::format(
      "\nThe law of the dense runs: loss = {:.3f} + {:.3f} (C / {:.3g} FLOP)^-{:.3f}, residual {:.4f} "
      "nats.\n",
      law.floor, law.scale, law.reference, law.exponent, law.rms);
  return out;
}

std::string lean_svg(const LeanReport& report, const std::vector<LeanResult>& results) {
  chart::Chart chart;
  chart.title = "Loss against training compute, all on the same number of tokens";
  chart.subtitle = "held-out text; small marks are seeds, lines go through their means";
  chart.x = {.label = "training FLOPs", .log = true};
  chart.y = {.label = "loss, nats a token"};
  for (const LeanKind kind : kLeanKinds) {
    const int color = static_cast<int>(kind);
    chart::Line means{.name = title_of(kind), .color = color};
    for (const auto& c : report.cells)
      if (c.kind == kind) means.x.push_back(c.compute), means.y.push_back(c.loss.mean);
    if (means.x.empty()) continue;
    chart::Points seeds{.color = color};
    for (const auto& r : results)
      if (r.run.kind == kind) seeds.x.push_back(r.compute()), seeds.y.push_back(r.loss);
    chart.lines.push_back(std::move(means));
    chart.points.push_back(std::move(seeds));
  }
  if (report.law) {
    chart::Line line{.name = "law of the dense", .color = 7, .faint = true};
    double least = INFINITY, most = 0;
    for (const auto& p : dense_points(results))
      least = std::min(least, p.compute), most = std::max(most, p.compute);
    for (int i = 0; i <= 40; ++i) {
      line.x.push_back(least * std::pow(most / least, i / 40.0));
      line.y.push_back(report.law->loss(line.x.back()));
    }
    chart.lines.push_back(std::move(line));
  }
  return chart::to_svg(chart);
}

nlohmann::ordered_json lean_json(const LeanOptions& options, const LeanReport& report,
                                 const std::vector<LeanResult>& results) {
  Json json{{"bench", "lean"}, {"settings", lean_settings(options)}, {"runs", Json::array()}};
  for (const auto& r : results)
    json["runs"].push_back({{"kind", lean_name(r.run.kind)},
                            {"size", r.run.size.name()},
                            {"seed", r.run.seed},
                            {"parameters", r.counts.total},
                            {"active_without_embedding", r.counts.active},
                            {"flops", r.compute()},
                            {"loss", r.loss},
                            {"bits_per_byte", r.bits_per_byte},
                            {"seconds", r.seconds}});
  if (const auto& law = report.law)
    json["dense_law"] = {{"floor", law->floor},
                         {"scale", law->scale},
                         {"exponent", law->exponent},
                         {"reference_flops", law->reference},
                         {"rms", law->rms}};
  json["dense_compute_for_equal_loss"] = Json::array();
  for (const auto& e : report.equal)
    json["dense_compute_for_equal_loss"].push_back({{"kind", lean_name(e.kind)},
                                                    {"size", e.size.name()},
                                                    {"by_law", to_json(e.by_law)},
                                                    {"between_sizes", to_json(e.between)}});
  return json;
}

}  // namespace sinew
