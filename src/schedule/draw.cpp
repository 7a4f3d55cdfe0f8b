#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "base/chart.hpp"
#include "base/chart_svg.hpp"
#include "schedule/simulate.hpp"

namespace sinew {
namespace {

char letter(Pass pass) {
  switch (pass) {
    case Pass::forward:
      return 'F';
    case Pass::backward:
      return 'B';
    case Pass::backward_input:
      return 'I';
    default:
      return 'W';
  }
}

// Forward light to dark blue by chunk, input gradients green, weight gradients amber.
std::string colour(const Action& action, int chunks) {
  const int shade = chunks > 1 ? action.chunk * 22 / (chunks - 1) : 0;
  switch (action.pass) {
    case Pass::forward:
      return fmt::format("hsl(212,70%,{}%)", 72 - shade);
    case Pass::backward:
      return fmt::format("hsl(150,45%,{}%)", 66 - shade);
    case Pass::backward_input:
      return fmt::format("hsl(170,45%,{}%)", 64 - shade);
    default:
      return fmt::format("hsl(40,85%,{}%)", 70 - shade);
  }
}

}  // namespace

std::string draw_text(const Schedule& s, const Simulation& simulation, int columns) {
  double shortest = simulation.makespan;
  for (const auto& row : simulation.timeline)
    for (const TimedAction& t : row)
      if (t.end > t.start) shortest = std::min(shortest, t.end - t.start);
  // Each cell is a letter and the micro-batch's number; an action covers the cells of its duration.
  const int digits = static_cast<int>(fmt::format("{}", s.micro_batches - 1).size()) + 2;
  const double cells = std::min(std::ceil(simulation.makespan / shortest - 1e-9),
                                static_cast<double>(std::max(1, (columns - 6) / digits)));
  const double unit = simulation.makespan / std::max(1.0, cells);
  std::string out;
  for (int rank = 0; rank < s.ranks; ++rank) {
    std::string line(static_cast<std::size_t>(cells) * digits, ' ');
    for (std::size_t i = 0; i < s.actions[rank].size(); ++i) {
      const Action& a = s.actions[rank][i];
      const TimedAction& t = simulation.timeline[rank][i];
      const auto begin = static_cast<std::size_t>(std::llround(t.start / unit)) * digits;
      const auto end = std::min(line.size(), static_cast<std::size_t>(std::llround(t.end / unit)) * digits);
      for (std::size_t k = begin; k + 1 < end; ++k) line[k] = '-';
      const char name =
          a.chunk % 2 == 1 && s.chunks > 1 ? static_cast<char>(letter(a.pass) - 'A' + 'a') : letter(a.pass);
      const std::string label = fmt::format("{}{}", name, a.micro_batch);
      for (std::size_t k = 0; k < label.size() && begin + k < line.size(); ++k) line[begin + k] = label[k];
    }
    while (!line.empty() && line.back() == ' ') line.pop_back();
    out += fmt::format("{:>4}  {}\n", rank, line);
  }
  return out;
}

std::string draw_svg(const Schedule& s, const Simulation& simulation, const std::string& title) {
  const double width = 1200, left = 64, top = 40, row = std::clamp(640.0 / s.ranks, 6.0, 26.0);
  const double scale = (width - left - 12) / std::max(simulation.makespan, 1e-300);
  const double height = top + row * s.ranks + 34;
  std::string svg = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {:.0f}\">{}"
      "<rect class=\"bg\" width=\"100%\" height=\"100%\"/><text class=\"t title\" x=\"12\" "
      "y=\"24\">{}</text>\n",
      width, height, chart::style(), chart::xml_escaped(title));
  for (int rank = 0; rank < s.ranks; ++rank) {
    const double y = top + row * rank;
    if (row >= 10)
      svg += fmt::format("<text class=\"m\" x=\"12\" y=\"{:.1f}\">rank {}</text>", y + row * 0.7, rank);
    svg += fmt::format(
        "<rect class=\"m\" fill-opacity=\"0.12\" x=\"{}\" y=\"{:.1f}\" width=\"{:.1f}\" "
        "height=\"{:.1f}\"/>\n",
        left, y, width - left - 12, row - 2);
    for (std::size_t i = 0; i < s.actions[rank].size(); ++i) {
      const Action& a = s.actions[rank][i];
      const TimedAction& t = simulation.timeline[rank][i];
      const double x = left + t.start * scale, w = (t.end - t.start) * scale;
      svg += fmt::format("<rect x=\"{:.2f}\" y=\"{:.1f}\" width=\"{:.2f}\" height=\"{:.1f}\" fill=\"{}\"/>",
                         x, y, std::max(w - 0.6, 0.3), row - 2, colour(a, s.chunks));
      if (w >= 14 && row >= 12)
        svg += fmt::format(
            "<text x=\"{:.2f}\" y=\"{:.1f}\" text-anchor=\"middle\" style=\"font-size:9px\">{}</text>",
            x + w / 2, y + row * 0.65, a.micro_batch);
    }
    svg += '\n';
  }
  const double y = height - 12;
  const char* legend[][2] = {{"forward", "hsl(212,70%,66%)"},
                             {"backward", "hsl(150,45%,60%)"},
                             {"input gradient", "hsl(170,45%,58%)"},
                             {"weight gradient", "hsl(40,85%,64%)"}};
  for (int i = 0; i < 4; ++i)
    svg += fmt::format(
        "<rect x=\"{0}\" y=\"{1:.0f}\" width=\"12\" height=\"12\" fill=\"{2}\"/>"
        "<text class=\"t\" x=\"{3}\" y=\"{4:.0f}\">{5}</text>",
        left + 150 * i, y - 10, legend[i][1], left + 150 * i + 17, y, legend[i][0]);
  svg +=
      fmt::format("<text class=\"t\" x=\"{}\" y=\"{:.0f}\" text-anchor=\"end\">idle {:.1f} %</text></svg>\n",
                  width - 12, y, 100 * simulation.bubble_share);
  return svg;
}

}  // namespace sinew
