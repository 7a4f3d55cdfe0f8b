// How far measurements of the same thing lie apart.
#pragma once

#include <string>
#include <vector>

namespace sinew {

struct MedianRange {
  double least = 0, median = 0, greatest = 0;
};

// Zeros for no values; of an even number the upper of the two in the middle.
MedianRange median_range(std::vector<double> values);

// "median (least to greatest)", in units of `unit`.
std::string range_text(const MedianRange& s, double unit, int digits);

}  // namespace sinew
