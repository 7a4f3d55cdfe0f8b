#include "quant/group_search.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "kernels/block_formats.hpp"

#if defined(__GNUC__)
#pragma GCC diagnostic ignored "-Wpsabi"  // every function that takes or gives Lanes is inlined
#endif

namespace sinew {
namespace {

constexpr float kTiny = 1e-30F;

// Eight floats: one AVX2 register, two of SSE2. Loads, stores and arithmetic are those of the compiler, so
// every processor gives the same result.
constexpr std::size_t kLanes = 8;
typedef float Lanes __attribute__((vector_size(4 * kLanes)));
#define SINEW_INLINE inline __attribute__((always_inline))

SINEW_INLINE Lanes splat(float value) { return Lanes{} + value; }
SINEW_INLINE Lanes load(const float* from) {
  Lanes value;
  std::memcpy(&value, from, sizeof value);
  return value;
}
SINEW_INLINE float total(const Lanes& lanes) {
  return ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) + ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
}

constexpr float kMagic =
    12582912.F;  // 1.5 * 2^23: adding and taking it away rounds to a whole number, ties to even

// The nearest whole number in low..high; a value that is far away is cut off before it is rounded.
SINEW_INLINE Lanes round_within(const Lanes& scaled, const Lanes& low, const Lanes& high) {
  Lanes value = scaled < low ? low : scaled;
  value = value > high ? high : value;
  return (value + kMagic) - kMagic;
}

constexpr std::array<float, 15> iq4_middles() {
  std::array<float, 15> middles{};
  for (std::size_t i = 0; i < 15; ++i)
    middles[i] = 0.5F * static_cast<float>(kIQ4Levels[i] + kIQ4Levels[i + 1]);
  return middles;
}
constexpr auto kMiddles = iq4_middles();

// The IQ4 level nearest to each value.
SINEW_INLINE Lanes iq4_within(const Lanes& value) {
  Lanes level = splat(static_cast<float>(kIQ4Levels[0]));
  const Lanes none{};
  for (std::size_t k = 0; k < 15; ++k) {
    const Lanes gap = splat(static_cast<float>(kIQ4Levels[k + 1] - kIQ4Levels[k]));
    level += value > splat(kMiddles[k]) ? gap : none;
  }
  return level;
}

struct Moments {
  float w_q = 0, w_qq = 0, w_xq = 0;
};

// The sums of the levels that (x - offset) * inverse rounds to.
template <bool kTable>
SINEW_INLINE Moments moments_in(const WeightGroup& group, float low, float high, float inverse,
                                float offset) {
  Lanes q{}, qq{}, xq{};
  for (std::size_t at = 0; at < group.size; at += kLanes) {
    const Lanes x = load(group.x + at), scaled = (x - offset) * inverse;
    const Lanes level = kTable ? iq4_within(scaled) : round_within(scaled, splat(low), splat(high));
    const Lanes weighted = load(group.w + at) * level;
    q += weighted;
    qq += weighted * level;
    xq += weighted * x;
  }
  return {total(q), total(qq), total(xq)};
}

template <bool kTable>
SINEW_INLINE float error_in(const WeightGroup& group, float low, float high, float step, float offset) {
  const float inverse = std::abs(step) > kTiny ? 1.F / step : 0.F;
  Lanes sum{};
  for (std::size_t at = 0; at < group.size; at += kLanes) {
    const Lanes x = load(group.x + at), scaled = (x - offset) * inverse;
    const Lanes level = kTable ? iq4_within(scaled) : round_within(scaled, splat(low), splat(high));
    const Lanes difference = x - step * level - offset;
    sum += load(group.w + at) * difference * difference;
  }
  return total(sum);
}

// One body for each kind of levels and each instruction set. Without fused multiply-adds, which would round
// otherwise.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__) && \
    !defined(__SANITIZE_THREAD__)
#define SINEW_CLONES __attribute__((target_clones("avx2", "default")))
#else
#define SINEW_CLONES
#endif
SINEW_CLONES Moments moments_of_range(const WeightGroup& group, float low, float high, float inverse,
                                      float offset) {
  return moments_in<false>(group, low, high, inverse, offset);
}
SINEW_CLONES Moments moments_of_table(const WeightGroup& group, float low, float high, float inverse,
                                      float offset) {
  return moments_in<true>(group, low, high, inverse, offset);
}
SINEW_CLONES float error_of_range(const WeightGroup& group, float low, float high, float step, float offset) {
  return error_in<false>(group, low, high, step, offset);
}
SINEW_CLONES float error_of_table(const WeightGroup& group, float low, float high, float step, float offset) {
  return error_in<true>(group, low, high, step, offset);
}

template <bool kTable>
Moments moments(const WeightGroup& group, float low, float high, float inverse, float offset) {
  return kTable ? moments_of_table(group, low, high, inverse, offset)
                : moments_of_range(group, low, high, inverse, offset);
}

// Tries scaling so that `extreme` meets `level`, and a little more or less.
template <bool kTable>
void try_steps(const WeightGroup& group, float low, float high, float level, float extreme, FitLine& best,
               float& best_gain) {
  const float spread =
      std::abs(level) > 64 && !kTable ? 0.35F : 0.1F * std::min(1.F, std::abs(level) / 8) + 0.02F;
  const int tries = kTable ? 7 : 9;
  const float unit = kTable ? 0.03F * std::abs(level) : spread;
  for (int k = -tries; k <= tries; ++k) {
    const float inverse = (level + static_cast<float>(k) * unit) / extreme;
    const Moments m = moments<kTable>(group, low, high, inverse, 0);
    if (m.w_qq <= 0) continue;
    const float gain = m.w_xq * m.w_xq / m.w_qq;  // what the best step for these levels takes off the error
    if (gain > best_gain) {
      best_gain = gain;
      best.step = m.w_xq / m.w_qq;
    }
  }
}

template <bool kTable>
FitLine search_step_in(const WeightGroup& group, float low, float high) {
  FitLine best;
  best.error = group.sum_wxx;
  const float extreme = -group.least > group.most ? group.least : group.most;
  if (std::abs(extreme) < kTiny) return best;
  const float bottom = kTable ? static_cast<float>(kIQ4Levels[0]) : low,
              top = kTable ? static_cast<float>(kIQ4Levels[15]) : high;
  float gain = 0;
  try_steps<kTable>(group, low, high, bottom, extreme, best, gain);
  try_steps<kTable>(group, low, high, top, extreme, best, gain);
  best.error = std::max(0.F, group.sum_wxx - gain);
  return best;
}

// The least-squares line through these levels, its offset bounded by `sign`.
FitLine solve_line(const WeightGroup& group, const Moments& m, int sign) {
  FitLine line;
  const float determinant = group.sum_w * m.w_qq - m.w_q * m.w_q;
  if (determinant > 0) {
    line.step = (group.sum_w * m.w_xq - group.sum_wx * m.w_q) / determinant;
    line.offset = (m.w_qq * group.sum_wx - m.w_q * m.w_xq) / determinant;
  } else if (group.sum_w > 0) {
    line.offset = group.sum_wx / group.sum_w;
  }
  if ((sign < 0 && line.offset > 0) || (sign > 0 && line.offset < 0)) {
    line.offset = 0;
    line.step = m.w_qq > 0 ? m.w_xq / m.w_qq : 0;
  }
  line.error = group.sum_wxx + line.step * line.step * m.w_qq + line.offset * line.offset * group.sum_w -
               2 * line.step * m.w_xq - 2 * line.offset * group.sum_wx + 2 * line.step * line.offset * m.w_q;
  return line;
}

}  // namespace

void load_group(const float* x, const float* w, std::size_t size, WeightGroup& group) {
  group.size = size;
  group.sum_w = group.sum_wx = group.sum_wxx = 0;
  group.least = group.most = x[0];
  for (std::size_t i = 0; i < size; ++i) {
    group.x[i] = x[i];
    group.w[i] = w == nullptr ? 1.F : w[i];
    group.sum_w += group.w[i];
    group.sum_wx += group.w[i] * x[i];
    group.sum_wxx += group.w[i] * x[i] * x[i];
    group.least = std::min(group.least, x[i]);
    group.most = std::max(group.most, x[i]);
  }
}

FitLine search_step(const WeightGroup& group, int low, int high, bool table) {
  const auto bottom = static_cast<float>(low), top = static_cast<float>(high);
  return table ? search_step_in<true>(group, bottom, top) : search_step_in<false>(group, bottom, top);
}

FitLine search_line(const WeightGroup& group, int high, int sign) {
  float least = group.least, most = group.most;
  if (sign < 0) least = std::min(least, 0.F);
  if (sign > 0) least = std::max(least, 0.F);
  FitLine best{0, least, line_error(group, 0, high, false, 0, least)};
  if (most - least < kTiny) return best;
  const auto top = static_cast<float>(high);
  constexpr int kTries = 20;
  for (int k = 0; k <= kTries; ++k) {
    // From levels that reach a little beyond the ends to such as cut them off.
    const float reach = top + (static_cast<float>(k) - 0.3F * kTries) * (high <= 3 ? 0.08F : 0.12F);
    const Moments m = moments<false>(group, 0, top, reach / (most - least), least);
    const FitLine line = solve_line(group, m, sign);
    if (line.step > 0 && line.error < best.error) best = line;
  }
  for (int pass = 0; pass < 3 && best.step > 0; ++pass) {  // from its own levels on, while that helps
    const FitLine line = solve_line(group, moments<false>(group, 0, top, 1 / best.step, best.offset), sign);
    if (line.step <= 0 || line.error >= best.error) break;
    best = line;
  }
  best.error = std::max(0.F, best.error);
  return best;
}

float line_error(const WeightGroup& group, int low, int high, bool table, float step, float offset) {
  const auto bottom = static_cast<float>(low), top = static_cast<float>(high);
  return table ? error_of_table(group, bottom, top, step, offset)
               : error_of_range(group, bottom, top, step, offset);
}

void line_levels(const WeightGroup& group, int low, int high, bool table, float step, float offset,
                 std::int8_t* levels) {
  const float inverse = std::abs(step) > kTiny ? 1.F / step : 0.F;
  for (std::size_t i = 0; i < group.size; ++i) {
    const float scaled = (group.x[i] - offset) * inverse;
    levels[i] = table ? static_cast<std::int8_t>(nearest_iq4(scaled))
                      : static_cast<std::int8_t>(std::nearbyint(
                            std::clamp(scaled, static_cast<float>(low), static_cast<float>(high))));
  }
}

int nearest_iq4(float value) {
  int index = 0;
  for (const float middle : kMiddles) index += value > middle ? 1 : 0;
  return index;
}

}  // namespace sinew
