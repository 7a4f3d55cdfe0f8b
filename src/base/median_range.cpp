#include "base/median_range.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace sinew {

MedianRange median_range(std::vector<double> values) {
  if (values.empty()) return {};
  std::sort(values.begin(), values.end());
  return {values.front(), values[values.size() / 2], values.back()};
}

std::string range_text(const MedianRange& s, double unit, int digits) {
  return fmt::format("{:.{}f} ({:.{}f} to {:.{}f})", s.median / unit, digits, s.least / unit, digits,
                     s.greatest / unit, digits);
}

}  // namespace sinew
