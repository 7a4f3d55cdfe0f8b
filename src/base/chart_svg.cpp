#include "base/chart_svg.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "base/chart.hpp"

namespace sinew::chart {
namespace {

constexpr double kText = 12;              // pixels
constexpr double kLetter = 0.56 * kText;  // mean width of a letter

struct Color {
  const char *light, *dark;
};
constexpr std::array<Color, 8> kPalette{{{"#2563c9", "#6ea8ff"},
                                         {"#d1462f", "#ff8a75"},
                                         {"#1f8a4c", "#5fd38d"},
                                         {"#8a4fc7", "#c39bff"},
                                         {"#b26a00", "#f0b04f"},
                                         {"#0b7f8a", "#4fd0dc"},
                                         {"#b23a86", "#f58fcb"},
                                         {"#5b6470", "#a9b4c2"}}};

}  // namespace

// Classes with plain colours: many SVG readers know no CSS variables.
std::string style() {
  std::string css =
      ".bg{fill:#fff}.t{fill:#1c2330}.m{fill:#5b6470}.g{stroke:#e3e6ea}.a{stroke:#9aa3ae}.h{stroke:#fff}"
      "text{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;font-size:12px}"
      ".title{font-size:15px;font-weight:600}.l{fill:none;stroke-width:1.8;stroke-linejoin:round;stroke-"
      "linecap:round}"
      ".f{opacity:.28;stroke-width:1}.in{fill:#fff}";
  std::string dark =
      ".bg{fill:#12161c}.t{fill:#e6eaf0}.m{fill:#a9b4c2}.g{stroke:#2a313b}.a{stroke:#5b6470}.h{stroke:#"
      "12161c}.in{fill:#12161c}";
  for (std::size_t i = 0; i < kPalette.size(); ++i) {
    css += fmt::format(".s{0}{{stroke:{1}}}.c{0}{{fill:{1}}}", i, kPalette[i].light);
    dark += fmt::format(".s{0}{{stroke:{1}}}.c{0}{{fill:{1}}}", i, kPalette[i].dark);
  }
  return fmt::format("<style>{}@media(prefers-color-scheme:dark){{{}}}</style>\n", css, dark);
}

std::string px(double value) {
  std::string text = fmt::format("{:.2f}", value);
  text.erase(text.find_last_not_of('0') + 1);
  if (text.back() == '.') text.pop_back();
  return text == "-0" ? "0" : text;
}

double text_width(const std::string& text) {
  std::size_t letters = 0;
  for (const char c : text) letters += (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  return static_cast<double>(letters) * kLetter;
}

std::string text_at(double x, double y, const std::string& text, const char* cls, const char* anchor,
                    const std::string& extra) {
  return fmt::format("<text class=\"{}\" x=\"{}\" y=\"{}\" text-anchor=\"{}\"{}>{}</text>\n", cls, px(x),
                     px(y), anchor, extra, xml_escaped(text));
}

std::string rule(double x1, double y1, double x2, double y2, const char* cls) {
  return fmt::format("<line class=\"{}\" x1=\"{}\" y1=\"{}\" x2=\"{}\" y2=\"{}\"/>\n", cls, px(x1), px(y1),
                     px(x2), px(y2));
}

std::string box(double x, double y, double width, double height, const std::string& attributes) {
  return fmt::format("<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" {}/>\n", px(x), px(y), px(width),
                     px(height), attributes);
}

const char* dash(int color) {
  const std::size_t round = static_cast<std::size_t>(color) / kPalette.size() % 3;
  return round == 0 ? "" : round == 1 ? " stroke-dasharray=\"7 4\"" : " stroke-dasharray=\"2 3\"";
}
std::size_t tone(int color) { return static_cast<std::size_t>(color) % kPalette.size(); }

std::string heat(double part, bool* light) {
  constexpr double stops[5][3] = {{68, 1, 84}, {59, 82, 139}, {33, 145, 140}, {94, 201, 98}, {253, 231, 37}};
  const double at = std::clamp(part, 0.0, 1.0) * 4;
  const auto i = std::min<std::size_t>(3, static_cast<std::size_t>(at));
  std::array<int, 3> rgb{};
  for (std::size_t c = 0; c < 3; ++c)
    rgb[c] = static_cast<int>(
        std::lround(stops[i][c] + (stops[i + 1][c] - stops[i][c]) * (at - static_cast<double>(i))));
  *light = part > 0.5;
  return fmt::format("#{:02x}{:02x}{:02x}", rgb[0], rgb[1], rgb[2]);
}

std::string xml_escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '<')
      out += "&lt;";
    else if (c == '>')
      out += "&gt;";
    else if (c == '&')
      out += "&amp;";
    else if (c == '"')
      out += "&quot;";
    else if (static_cast<unsigned char>(c) >= 0x20)
      out += c;
  }
  return out;
}

}  // namespace sinew::chart
