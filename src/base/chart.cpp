#include "base/chart.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/chart_svg.hpp"
#include "base/error.hpp"

namespace sinew::chart {
namespace {

constexpr double kRight = 18, kLegendRow = 18;  // pixels

struct Range {
  double min = INFINITY, max = -INFINITY;
  void add(double value, bool log) {
    if (!std::isfinite(value) || (log && value <= 0)) return;
    min = std::min(min, value);
    max = std::max(max, value);
  }
};

class Drawing {
 public:
  explicit Drawing(const Chart& chart) : c_(chart) {
    color_all();
    set_ranges();
    lay_out();
  }

  std::string svg() {
    title_and_legend();
    axes();
    if (c_.heat_map) heat_map();
    if (c_.spans) spans();
    bars();
    for (const auto& line : c_.lines) draw_line(line);
    for (const auto& points : c_.points) draw_points(points);
    return std::move(out_);
  }

 private:
  struct Entry {
    std::string name;
    int color;
    bool line;
  };

  void color_all() {
    int next = 0;
    const auto color = [&](int& mine, const std::string& name, bool line) {
      if (mine < 0) mine = next;
      next = std::max(next, mine + 1);
      if (!name.empty()) legend_.push_back({name, mine, line});
    };
    for (auto& bars : c_.bars) color(bars.color, bars.name, false);
    for (auto& line : c_.lines) color(line.color, line.faint ? "" : line.name, true);
    for (auto& points : c_.points) color(points.color, points.name, false);
    if (c_.spans)
      for (std::size_t i = 0; i < c_.spans->names.size(); ++i)
        legend_.push_back({c_.spans->names[i], static_cast<int>(i), false});
  }

  bool bars_lie() const { return !c_.y.categories.empty(); }  // horizontal bars

  void set_ranges() {
    Range x, y;
    const auto pairs = [&](const auto& mark) {
      ensure(mark.x.size() == mark.y.size(), "a chart's mark has {} x and {} y values", mark.x.size(),
             mark.y.size());
      for (std::size_t i = 0; i < mark.x.size(); ++i) {
        if (!std::isfinite(mark.x[i]) || !std::isfinite(mark.y[i])) continue;
        x.add(mark.x[i], c_.x.log);
        y.add(mark.y[i], c_.y.log);
      }
    };
    for (const auto& line : c_.lines) pairs(line);
    for (const auto& points : c_.points) pairs(points);
    Range& values = bars_lie() ? x : y;
    const bool values_log = bars_lie() ? c_.x.log : c_.y.log;
    for (const auto& bars : c_.bars) {
      for (const double value : bars.values) values.add(value, values_log);
      if (!values_log) values.add(0, false);
    }
    if (c_.spans)
      for (const auto& span : c_.spans->spans) {
        x.add(span.begin, c_.x.log);
        x.add(span.end, c_.x.log);
      }
    const bool padded = c_.spans || !c_.bars.empty() || c_.heat_map;
    x_ = scale(c_.x, x, padded ? 0 : c_.points.empty() ? 0 : 0.04, "x");
    y_ = scale(c_.y, y, 0.05, "y");
  }

  Scale scale(const Axis& axis, Range range, double pad, const char* name) const {
    Scale scale;
    scale.log = axis.log;
    if (!axis.categories.empty()) {
      scale.min = -0.5;
      scale.max = static_cast<double>(axis.categories.size()) - 0.5;
      scale.log = false;
      return scale;
    }
    if (axis.min) range.min = *axis.min;
    if (axis.max) range.max = *axis.max;
    require(std::isfinite(range.min) && std::isfinite(range.max), "{}: nothing to draw on the {} axis",
            c_.title.empty() ? "chart" : c_.title, name);
    require(!axis.log || range.min > 0, "the {} axis is logarithmic: its range must be positive", name);
    if (range.max <= range.min) {  // a single value
      const double around = range.min == 0 ? 1 : std::abs(range.min) * 0.1;
      range =
          axis.log ? Range{range.min / 1.5, range.min * 1.5} : Range{range.min - around, range.min + around};
    } else if (axis.log) {
      const double factor = std::pow(range.max / range.min, pad);
      if (!axis.min) range.min /= factor;
      if (!axis.max) range.max *= factor;
    } else {
      const double room = (range.max - range.min) * pad;
      if (!axis.min && range.min != 0) range.min -= room;  // a baseline of 0 stays at the foot
      if (!axis.max && range.max != 0) range.max += room;
    }
    scale.min = range.min;
    scale.max = range.max;
    return scale;
  }

  void lay_out() {
    const double head = (c_.title.empty() ? 0 : 26) + (c_.subtitle.empty() ? 0 : 17);
    y_ticks_ = c_.y.categories.empty()
                   ? nice_ticks(y_.min, y_.max, std::max(2, static_cast<int>(c_.height / 60)), y_.log)
                   : std::vector<double>();
    y_labels_ = c_.y.categories.empty() ? tick_labels(y_ticks_) : c_.y.categories;
    double widest = 0;
    for (const auto& label : y_labels_) widest = std::max(widest, text_width(label));
    left_ = 16 + widest + (c_.y.label.empty() ? 0 : 22);
    legend_rows_ = 0;
    if (legend_.size() > 1 || (legend_.size() == 1 && c_.title.empty())) {
      legend_rows_ = 1;
      double at = left_;
      for (const auto& entry : legend_) {
        const double width = 34 + text_width(entry.name);
        if (at + width > c_.width - kRight && at > left_) {
          ++legend_rows_;
          at = left_;
        }
        at += width;
      }
    }
    top_ = 14 + head + legend_rows_ * kLegendRow + (legend_rows_ > 0 ? 6 : 0);
    right_ = c_.width - kRight - (c_.heat_map ? 70 : 0);
    turned_ = false;
    double deepest = 0;
    for (const auto& label : c_.x.categories) {
      deepest = std::max(deepest, text_width(label));
      turned_ |= text_width(label) > (right_ - left_) / static_cast<double>(c_.x.categories.size()) - 6;
    }
    bottom_ = c_.height - 28 - (c_.x.label.empty() ? 0 : 20) - (turned_ ? deepest * 0.6 : 0);
    ensure(bottom_ > top_ + 20 && right_ > left_ + 20, "a chart of {} by {} has no room", c_.width,
           c_.height);
    x_.from = left_;
    x_.to = right_;
    y_.from = c_.y.categories.empty() ? bottom_ : top_;
    y_.to = c_.y.categories.empty() ? top_ : bottom_;
  }

  void title_and_legend() {
    double y = 14;
    if (!c_.title.empty()) out_ += text_at(left_, y += 12, c_.title, "t title");
    if (!c_.subtitle.empty()) out_ += text_at(left_, y += 17, c_.subtitle, "m");
    if (legend_rows_ == 0) return;
    double x = left_;
    y = top_ - 8 - (legend_rows_ - 1) * kLegendRow;
    for (const auto& entry : legend_) {
      const double width = 34 + text_width(entry.name);
      if (x + width > c_.width - kRight && x > left_) {
        x = left_;
        y += kLegendRow;
      }
      if (entry.line)
        out_ += fmt::format("<line class=\"l s{}\" x1=\"{}\" y1=\"{}\" x2=\"{}\" y2=\"{}\"{}/>\n",
                            tone(entry.color), px(x), px(y - 4), px(x + 16), px(y - 4), dash(entry.color));
      else
        out_ += box(x + 3, y - 9, 10, 10, fmt::format("class=\"c{}\" rx=\"2\"", tone(entry.color)));
      out_ += text_at(x + 21, y, entry.name, "t");
      x += width;
    }
  }

  void axes() {
    if (c_.y.categories.empty())
      for (std::size_t i = 0; i < y_ticks_.size(); ++i) {
        const double y = y_(y_ticks_[i]);
        out_ += rule(left_, y, right_, y, "g");
        out_ += text_at(left_ - 8, y + 4, y_labels_[i], "m", "end");
      }
    else
      for (std::size_t i = 0; i < y_labels_.size(); ++i)
        out_ += text_at(left_ - 8, y_(static_cast<double>(i)) + 4, y_labels_[i], "m", "end");
    const double foot = bottom_ + 17;
    if (c_.x.categories.empty()) {
      const auto ticks =
          nice_ticks(x_.min, x_.max, std::max(2, static_cast<int>((right_ - left_) / 90)), x_.log);
      const auto labels = tick_labels(ticks);
      for (std::size_t i = 0; i < ticks.size(); ++i) {
        const double x = x_(ticks[i]);
        out_ += bars_lie() ? rule(x, top_, x, bottom_, "g") : rule(x, bottom_, x, bottom_ + 4, "a");
        out_ += text_at(x, foot, labels[i], "m", "middle");
      }
    }
    for (std::size_t i = 0; i < c_.x.categories.size(); ++i) {
      const double x = x_(static_cast<double>(i));
      const std::string turn = fmt::format(" transform=\"rotate(-35 {} {})\"", px(x), px(foot));
      out_ += text_at(x, foot, c_.x.categories[i], "m", turned_ ? "end" : "middle", turned_ ? turn : "");
    }
    out_ += rule(left_, bottom_, right_, bottom_, "a");
    if (!c_.x.label.empty()) out_ += text_at((left_ + right_) / 2, c_.height - 10, c_.x.label, "t", "middle");
    const double middle = (top_ + bottom_) / 2;
    if (!c_.y.label.empty())
      out_ += text_at(18, middle, c_.y.label, "t", "middle",
                      fmt::format(" transform=\"rotate(-90 18 {})\"", px(middle)));
  }

  bool inside(double x, double y) const { return x_.holds(x) && y_.holds(y) && x >= x_.min && x <= x_.max; }
  double clamped_y(double y) const {
    return std::clamp(y_(y), std::min(y_.from, y_.to) - 1, std::max(y_.from, y_.to) + 1);
  }

  // At most four points a pixel column (first, lowest, highest, last): a long run makes no larger file.
  void draw_line(const Line& line) {
    std::string path;
    bool pen_up = true;
    struct Column {
      double first_x, first, low, high, last_x, last;
      std::size_t count = 0;
    } column{};
    const auto put = [&](double x, double y) {
      path += fmt::format("{}{} {}", pen_up ? "M" : "L", px(x), px(y));
      pen_up = false;
    };
    const auto flush = [&] {
      if (column.count == 0) return;
      put(column.first_x, column.first);
      if (column.count > 2) {
        put((column.first_x + column.last_x) / 2, column.low);
        put((column.first_x + column.last_x) / 2, column.high);
      }
      if (column.count > 1) put(column.last_x, column.last);
      column.count = 0;
    };
    for (std::size_t i = 0; i < line.x.size(); ++i) {
      if (!inside(line.x[i], line.y[i])) {
        flush();
        pen_up = true;
        continue;
      }
      const double x = x_(line.x[i]), y = clamped_y(line.y[i]);
      if (column.count > 0 && std::floor(x) != std::floor(column.first_x)) flush();
      if (column.count == 0) column = {x, y, y, y, x, y, 0};
      column.low = std::min(column.low, y);
      column.high = std::max(column.high, y);
      column.last_x = x;
      column.last = y;
      ++column.count;
    }
    flush();
    if (!path.empty())
      out_ += fmt::format("<path class=\"l{} s{}\" d=\"{}\"{}/>\n", line.faint ? " f" : "", tone(line.color),
                          path, dash(line.color));
  }

  void draw_points(const Points& points) {
    for (std::size_t i = 0; i < points.x.size(); ++i)
      if (inside(points.x[i], points.y[i]))
        out_ += fmt::format("<circle class=\"c{}\" cx=\"{}\" cy=\"{}\" r=\"3.2\" fill-opacity=\".8\"/>\n",
                            tone(points.color), px(x_(points.x[i])), px(clamped_y(points.y[i])));
  }

  void bars() {
    const bool lie = bars_lie();
    const Scale &along = lie ? x_ : y_, &across = lie ? y_ : x_;
    const double band = std::abs(across(1) - across(0)) * 0.76,
                 width = band / static_cast<double>(c_.bars.size());
    const double foot = along.log ? along.min : std::clamp(0.0, along.min, along.max);
    for (std::size_t b = 0; b < c_.bars.size(); ++b)
      for (std::size_t i = 0; i < c_.bars[b].values.size(); ++i) {
        const double value = c_.bars[b].values[i];
        if (!along.holds(value)) continue;
        const double side = across(static_cast<double>(i)) - band / 2 + static_cast<double>(b) * width;
        const double from = along(foot), to = along(std::clamp(value, along.min, along.max));
        const double low = std::min(from, to), length = std::abs(to - from);
        const std::string cls = fmt::format("class=\"c{}\"", tone(c_.bars[b].color));
        out_ += lie ? box(low, side, length, width * 0.94, cls) : box(side, low, width * 0.94, length, cls);
      }
  }

  void spans() {
    const double row = std::abs(y_(1) - y_(0)), height = row * 0.8;
    for (const auto& span : c_.spans->spans) {
      ensure(span.row < c_.y.categories.size(), "a span on row {} of {}", span.row, c_.y.categories.size());
      if (!x_.holds(span.begin) || !x_.holds(span.end)) continue;
      const double from = std::clamp(x_(span.begin), left_, right_),
                   to = std::clamp(x_(span.end), left_, right_);
      const double y = y_(static_cast<double>(span.row)) - height / 2;
      out_ += box(from, y, to - from, height,
                  fmt::format("class=\"c{} h\" stroke-width=\".6\"", tone(static_cast<int>(span.kind))));
      if (!span.text.empty() && text_width(span.text) + 2 < to - from && height > 13)
        out_ += text_at((from + to) / 2, y + height / 2 + 4, span.text, "in", "middle");
    }
  }

  void heat_map() {
    const HeatMap& map = *c_.heat_map;
    const std::size_t columns = c_.x.categories.size(), rows = c_.y.categories.size();
    ensure(columns > 0 && rows > 0 && map.values.size() == rows * columns,
           "a heat map of {} values on {} by {} categories", map.values.size(), rows, columns);
    Range range;
    for (const double value : map.values) range.add(value, false);
    require(range.min <= range.max, "{}: nothing to draw", c_.title.empty() ? "heat map" : c_.title);
    const double spread = range.max > range.min ? range.max - range.min : 1;
    const double width = (right_ - left_) / static_cast<double>(columns),
                 height = (bottom_ - top_) / static_cast<double>(rows);
    bool light = false;
    for (std::size_t i = 0; i < map.values.size(); ++i) {
      if (!std::isfinite(map.values[i])) continue;
      const std::size_t row = i / columns, column = i % columns;
      const double x = left_ + width * static_cast<double>(column),
                   y = top_ + height * static_cast<double>(row);
      const std::string fill = heat((map.values[i] - range.min) / spread, &light);
      out_ += box(x, y, width, height, fmt::format("fill=\"{}\"", fill));
      const std::string text = fmt::format("{:.3g}", map.values[i]);
      if (map.numbers && text_width(text) + 4 < width && height > 14)
        out_ += text_at(x + width / 2, y + height / 2 + 4, text, "", "middle",
                        light ? " fill=\"#111\"" : " fill=\"#fff\"");
    }
    key(range, map.label);
  }

  // The colours of a heat map and what they stand for.
  void key(const Range& range, const std::string& label) {
    const double x = right_ + 12, height = bottom_ - top_;
    bool light = false;
    for (int i = 0; i < 40; ++i)
      out_ += box(x, bottom_ - height * (i + 1) / 40, 12, height / 40 + 0.5,
                  fmt::format("fill=\"{}\"", heat((i + 0.5) / 40, &light)));
    out_ += text_at(x + 16, bottom_, fmt::format("{:.3g}", range.min), "m");
    out_ += text_at(x + 16, top_ + 10, fmt::format("{:.3g}", range.max), "m");
    if (!label.empty())
      out_ += text_at(x + 28, (top_ + bottom_) / 2, label, "m", "middle",
                      fmt::format(" transform=\"rotate(-90 {} {})\"", px(x + 28), px((top_ + bottom_) / 2)));
  }

  Chart c_;
  Scale x_, y_;
  std::vector<Entry> legend_;
  std::vector<double> y_ticks_;
  std::vector<std::string> y_labels_;
  double left_ = 0, right_ = 0, top_ = 0, bottom_ = 0;
  int legend_rows_ = 0;
  bool turned_ = false;
  std::string out_;
};

}  // namespace

std::string to_svg(const Chart& chart) { return to_svg(std::vector{chart}); }

std::string to_svg(const std::vector<Chart>& charts) {
  ensure(!charts.empty(), "no chart to draw");
  double width = 0, height = 0;
  std::string body, title;
  for (const auto& chart : charts) {
    body += fmt::format("<g transform=\"translate(0 {})\">\n{}</g>\n", px(height), Drawing(chart).svg());
    width = std::max(width, chart.width);
    height += chart.height;
    if (title.empty()) title = chart.title;
  }
  return fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0} {1}\" width=\"{0}\" height=\"{1}\" "
      "role=\"img\">\n"
      "<title>{2}</title>\n{3}<rect class=\"bg\" width=\"100%\" height=\"100%\"/>\n{4}</svg>\n",
      px(width), px(height), xml_escaped(title), style(), body);
}

}  // namespace sinew::chart
