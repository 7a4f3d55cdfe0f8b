// The page: one file, no scripts, nothing fetched; every picture is SVG inside it.
#include <fmt/format.h>

#include <algorithm>

#include "base/chart.hpp"
#include "base/text.hpp"
#include "plan/answer.hpp"
#include "schedule/simulate.hpp"

namespace sinew::plan {
namespace {

using chart::xml_escaped;

constexpr const char* colours[] = {"#2f6db5", "#e08a2e", "#4a9d5b", "#c2504d", "#7d62b0", "#8a6a52",
                                   "#cf7fb5", "#808080", "#b3a72f", "#38a3ad", "#5f6b7a"};

struct Part {
  std::string name;
  double value;
};
struct Bar {
  std::string label;
  std::vector<Part> parts;
};

// Stacked horizontal bars with one legend; `limit` draws a line (the memory there is). Plain boxes, so that
// labels wrap on a phone.
std::string stacked(const std::vector<Bar>& bars, const std::string& unit, double limit) {
  double most = limit;
  for (const Bar& bar : bars) {
    double sum = 0;
    for (const Part& part : bar.parts) sum += part.value;
    most = std::max(most, sum);
  }
  const double scale = 96 / std::max(most, 1e-300);  // % of the width
  std::string out;
  for (const Bar& bar : bars) {
    double sum = 0;
    for (const Part& part : bar.parts) sum += part.value;
    out +=
        fmt::format("<div class=\"bar\"><div class=\"code\">{} <b>{:.3g} {}</b></div><div class=\"parts\">",
                    xml_escaped(bar.label), sum, unit);
    for (std::size_t i = 0; i < bar.parts.size(); ++i)
      if (bar.parts[i].value * scale > 0.05)
        out += fmt::format("<i style=\"width:{:.2f}%;background:{}\" title=\"{}: {:.3g} {}\"></i>",
                           bar.parts[i].value * scale, colours[i % std::size(colours)],
                           xml_escaped(bar.parts[i].name), bar.parts[i].value, unit);
    if (limit > 0) out += fmt::format("<s style=\"left:{:.2f}%\"></s>", limit * scale);
    out += "</div></div>";
  }
  out += "<p class=\"legend\">";
  for (std::size_t i = 0; i < bars[0].parts.size(); ++i)
    out += fmt::format("<span><i style=\"background:{}\"></i>{}</span>", colours[i % std::size(colours)],
                       xml_escaped(bars[0].parts[i].name));
  if (limit > 0)
    out += fmt::format("<span class=\"limit\">line: the {:.0f} {} there are</span>", limit, unit);
  return out + "</p>";
}

struct Point {
  double x, y;
};

// Points joined by a line on logarithmic axes; `ideal` adds a line through the first point with slope one.
std::string curve(const std::vector<Point>& points, const std::string& x_name, const std::string& y_name,
                  bool ideal) {
  if (points.size() < 2) return "<p>Too few points to draw.</p>";
  chart::Chart c{.subtitle = y_name, .x = {.label = x_name, .log = true}, .y = {.log = true}};
  c.width = 520;  // small, so that a phone does not shrink its letters much
  c.height = 300;
  constexpr int dashed_grey = 15;
  const Point &first = points.front(), &last = points.back();
  if (ideal) c.lines.push_back({"", {first.x, last.x}, {first.y, first.y * last.x / first.x}, dashed_grey});
  chart::Line line{.color = 0};
  for (const Point& p : points) {
    line.x.push_back(p.x);
    line.y.push_back(p.y);
  }
  c.points.push_back({"", line.x, line.y, 0});
  c.lines.push_back(std::move(line));
  return "<div class=\"curve\">" + chart::to_svg(c) + "</div>";
}

std::vector<Part> time_parts(const StepPrediction& p) {
  std::vector<Part> parts;
  for (int i = 0; i < term_count; ++i)
    parts.push_back({term_name(static_cast<Term>(i)), p.time.work.seconds[static_cast<std::size_t>(i)]});
  parts.push_back({"pipeline bubble", p.time.bubble});
  parts.push_back({"data-parallel traffic", p.time.data});
  parts.push_back({"optimizer", p.time.optimizer});
  parts.push_back({"stragglers and rest", p.time.other});
  return parts;
}

std::vector<Part> memory_parts(const MemoryUse& m) {
  return {{"weights", m.weights / 1e9},     {"gradients", m.gradients / 1e9},
          {"optimizer", m.optimizer / 1e9}, {"activations", m.activations / 1e9},
          {"buffers", m.buffers / 1e9},     {"runtime", m.runtime / 1e9}};
}

std::string pipeline_chart(const Candidate& best) {
  const Layout& l = best.setup.layout;
  if (l.pipeline == 1) return "<p>The best layout has no pipeline.</p>";
  const auto costs = stage_costs(best.setup, fitted_constants());
  // Enough micro-batches to see how it fills and drains.
  const auto count =
      static_cast<int>(std::min<std::int64_t>(best.setup.micro_batches(), std::max(8, 2 * l.pipeline)));
  const Schedule schedule = make_schedule(l.schedule, l.pipeline, count, l.chunks);
  // On a phone the picture keeps a size that can be read and is pushed sideways.
  return "<div class=\"scroll chart\">" +
         draw_svg(schedule, simulate(schedule, costs),
                  fmt::format("{}: {} ranks, the first {} of {} micro-batches", schedule_name(l.schedule),
                              l.pipeline, count, best.setup.micro_batches())) +
         "</div>";
}

std::string money(double d) {
  return d >= 1e6 ? fmt::format("${:.2f}M", d / 1e6) : fmt::format("${:.0f}", d);
}

std::string headline(const Answer& a) {
  const NetworkCounts n = count(a.network);
  const RunTotals& t = a.totals;
  const Candidate& best = a.search.best[0];
  std::string out = fmt::format(
      "<h1>{}</h1><p class=\"sub\">{} parameters, {} active, on {} x {}, {}; batch {} x {} tokens</p><dl>",
      xml_escaped(a.network.name), human_count(n.total), human_count(n.active),
      with_commas(static_cast<std::uint64_t>(a.cluster.count)), xml_escaped(a.cluster.chip.name),
      precision_name(a.job.precision), a.job.global_batch, a.job.sequence);
  const auto fact = [&](const std::string& name, const std::string& value) {
    out += fmt::format("<div><dt>{}</dt><dd>{}</dd></div>", name, value);
  };
  fact("step", fmt::format("{:.3f} s", best.step.seconds));
  fact("tokens/s", human_count(best.step.tokens_per_second));
  fact("model FLOPs of peak", fmt::format("{:.1f} %", 100 * best.step.mfu));
  if (t.steps > 0) {
    fact("days", fmt::format("{:.1f}", t.days));
    fact("accelerator-hours", human_count(t.accelerator_hours));
    fact("cost", money(t.dollars));
    fact("energy", fmt::format("{:.0f} MWh", t.megawatt_hours));
  }
  fact("effective time", fmt::format("{:.1f} %", 100 * t.goodput.share));
  fact("a failure every", fmt::format("{:.2f} h", t.goodput.mtbf_hours));
  fact("checkpoint every", human_seconds(t.goodput.interval));
  fact("spare nodes", fmt::format("{}", t.spares));
  return out + "</dl>";
}

std::string layout_table(const Answer& a) {
  std::string out =
      "<div class=\"scroll\"><table><tr><th>step s</th><th>tokens/s</th><th>MFU</th><th>memory "
      "GB</th><th>layout</th></tr>";
  for (const Candidate& c : a.search.best)
    out += fmt::format(
        "<tr><td>{:.3f}</td><td>{}</td><td>{:.1f} %</td><td>{:.1f}</td><td class=\"code\">{}</td></tr>",
        c.step.seconds, human_count(c.step.tokens_per_second), 100 * c.step.mfu, c.step.memory.total() / 1e9,
        xml_escaped(layout_text(c.setup.layout)));
  return out + fmt::format("</table></div><p>{} layouts considered, {} of them simulated.</p>",
                           with_commas(a.search.considered), with_commas(a.search.simulated));
}

std::string scaling(const Answer& a) {
  if (a.scaling.empty()) return "";
  std::vector<Point> rate, money_points;
  std::string table =
      "<div "
      "class=\"scroll\"><table><tr><th>accelerators</th><th>tokens/s</th><th>MFU</th><th>effective</"
      "th><th>days</th><th>cost</th><th>what bends the curve</th></tr>";
  for (const ScalePoint& s : a.scaling) {
    const double useful = s.best.step.tokens_per_second * s.totals.goodput.share;
    rate.push_back({static_cast<double>(s.count), useful});
    if (s.totals.days > 0) money_points.push_back({s.totals.days, s.totals.dollars});
    table += fmt::format(
        "<tr><td>{}</td><td>{}</td><td>{:.1f} %</td><td>{:.1f} "
        "%</td><td>{:.1f}</td><td>{}</td><td>{}</td></tr>",
        with_commas(static_cast<std::uint64_t>(s.count)), human_count(useful), 100 * s.best.step.mfu,
        100 * s.totals.goodput.share, s.totals.days, money(s.totals.dollars), s.bend);
  }
  std::sort(money_points.begin(), money_points.end(),
            [](const Point& x, const Point& y) { return x.x < y.x; });
  std::string out = "<h2>More or fewer accelerators</h2>" +
                    curve(rate, "accelerators", "tokens/s, failures included", true) +
                    "<p>Dashed: in proportion to the accelerators.</p>" + table + "</table></div>";
  if (money_points.size() > 1)
    out += "<h2>Cost against time</h2>" + curve(money_points, "days", "USD", false);
  return out;
}

std::string front(const Answer& a) {
  if (a.front.size() < 2) return "";
  std::vector<Point> points;
  std::string table =
      "<div class=\"scroll\"><table><tr><th>memory GB</th><th>step s</th><th>layout</th></tr>";
  for (const Candidate& c : a.front) {
    points.push_back({c.step.memory.total() / 1e9, c.step.seconds});
    table += fmt::format("<tr><td>{:.1f}</td><td>{:.3f}</td><td class=\"code\">{}</td></tr>", points.back().x,
                         points.back().y, xml_escaped(layout_text(c.setup.layout)));
  }
  std::reverse(points.begin(), points.end());
  return "<h2>Time against memory</h2>" + curve(points, "GB of an accelerator", "s a step", false) + table +
         "</table></div>";
}

std::string sensitivity(const Answer& a) {
  if (a.sensitivity.empty()) return "";
  std::string out =
      "<h2>What if</h2><div class=\"scroll\"><table><tr><th></th><th>step "
      "s</th><th>effective</th><th>days</th><th>cost</th></tr>";
  for (const SensitivityRow& s : a.sensitivity)
    out += fmt::format(
        "<tr><td class=\"name\">{}</td><td>{:.3f}</td><td>{:.1f} %</td><td>{:.1f}</td><td>{}</td></tr>",
        xml_escaped(s.change), s.seconds, 100 * s.goodput, s.days, money(s.dollars));
  return out + "</table></div>";
}

constexpr const char* style =
    ":root{color-scheme:light "
    "dark;--text:#222;--soft:#555;--rule:#ddd;--card:#f4f6f8;--back:#fff;--line:#b00}"
    "@media(prefers-color-scheme:dark){:root{--text:#e6eaf0;--soft:#a9b4c2;--rule:#2a313b;--card:#1c222b;"
    "--back:#12161c;--line:#ff8a75}}"
    "body{font:16px/1.5 system-ui,sans-serif;color:var(--text);background:var(--back);max-width:60rem;"
    "margin:0 auto;padding:1rem}"
    "h1{margin:.2em 0 0;font-size:1.7rem}h2{margin:1.8em 0 .5em;font-size:1.15rem;border-bottom:1px solid "
    "var(--rule)}"
    ".sub{color:var(--soft);margin:.2em 0 1em}svg{width:100%;height:auto;display:block}"
    "dl{display:grid;grid-template-columns:repeat(auto-fit,minmax(8.5rem,1fr));gap:.6rem;margin:0}dl "
    "div{background:var(--card);border-radius:6px;padding:.5rem .7rem}"
    "dt{font-size:.8rem;color:var(--soft)}dd{margin:0;font-size:1.15rem;font-weight:600}"
    "table{border-collapse:collapse;font-size:.9rem}td,th{padding:.3rem "
    ".6rem;text-align:right;border-bottom:1px solid var(--rule);white-space:nowrap}"
    "th{font-weight:600;color:var(--soft)}.code,.name{text-align:left}.code{font-family:ui-monospace,"
    "monospace;"
    "font-size:.8rem}.scroll{overflow-x:auto}.curve{max-width:44rem}"
    ".bar{margin:.5rem 0}.parts{position:relative;display:flex;height:1.3rem;background:var(--card)}.parts "
    "i{display:block;height:100%}.parts s{position:absolute;top:-.2rem;bottom:-.2rem;border-left:2px dashed "
    "var(--line)}"
    ".legend{font-size:.85rem;margin:.4rem 0;display:flex;flex-wrap:wrap;gap:.2rem 1rem}.legend "
    "i{display:inline-block;width:.8em;height:.8em;margin-right:.35em;border-radius:2px}"
    ".limit{color:var(--line)}"
    "@media(max-width:600px){.curve text{font-size:14px}.chart svg{width:auto;min-width:52rem}}"
    "footer{margin-top:2rem;color:var(--soft);font-size:.85rem}";

}  // namespace

std::string answer_html(const Answer& a) {
  std::vector<Bar> times, memories;
  for (const Candidate& c : a.search.best) {
    times.push_back({layout_text(c.setup.layout), time_parts(c.step)});
    memories.push_back({layout_text(c.setup.layout), memory_parts(c.step.memory)});
  }
  return fmt::format(
      "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" "
      "content=\"width=device-width,initial-scale=1\"><title>Plan: {}</title><style>{}</style></head><body>"
      "{}<h2>The best layouts</h2>{}<h2>Where the time goes</h2>{}<h2>Memory of the fullest "
      "accelerator</h2>{}<h2>The pipeline</h2>{}{}{}{}"
      "<footer>Made by `sinew plan`. The model, its constants and their errors on published runs: "
      "docs/planner.md.</footer></body></html>\n",
      xml_escaped(a.network.name), style, headline(a), layout_table(a), stacked(times, "s", 0),
      stacked(memories, "GB", a.cluster.chip.memory_bytes / 1e9), pipeline_chart(a.search.best[0]),
      scaling(a), front(a), sensitivity(a));
}

}  // namespace sinew::plan
