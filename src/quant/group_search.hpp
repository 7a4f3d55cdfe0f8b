// Scales for one group of 16 or 32 weights: the inner loops of block_fit.cpp.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sinew {

inline constexpr std::size_t kMaxGroup = 32;

// A group with its importance, and the sums that do not depend on the levels.
struct WeightGroup {
  float x[kMaxGroup], w[kMaxGroup];
  std::size_t size = 0;
  float sum_w = 0, sum_wx = 0, sum_wxx = 0;
  float least = 0, most = 0;  // of x
};
void load_group(const float* x, const float* w, std::size_t size, WeightGroup& group);

struct FitLine {
  float step = 0, offset = 0;
  float error = 0;  // sum w (x - step * level - offset)^2 with the nearest levels
};

// The best step for levels low..high without offset (`table`: the levels of IQ4).
FitLine search_step(const WeightGroup& group, int low, int high, bool table);

// The best step > 0 and offset for levels 0..high. `sign` -1 asks for offset <= 0, +1 for offset >= 0, 0 for
// any.
FitLine search_line(const WeightGroup& group, int high, int sign);

// The error of a given line.
float line_error(const WeightGroup& group, int low, int high, bool table, float step, float offset);

// The nearest levels of a given line.
void line_levels(const WeightGroup& group, int low, int high, bool table, float step, float offset,
                 std::int8_t* levels);

// Index (0..15) of the IQ4 level nearest to `value`.
int nearest_iq4(float value);

}  // namespace sinew
