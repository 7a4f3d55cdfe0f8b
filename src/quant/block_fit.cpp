#include "quant/block_fit.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.hpp"
#include "base/float_formats.hpp"
#include "quant/group_search.hpp"

namespace sinew {
namespace {

// Rounded to half; infinity is pulled back so that no weight becomes one.
std::uint16_t to_half(float value) { return float_to_half(std::clamp(value, -65504.F, 65504.F)); }

bool has_offset(BlockFormat format) {
  switch (format) {
    case BlockFormat::q4_1:
    case BlockFormat::q5_1:
    case BlockFormat::q2_k:
    case BlockFormat::q4_k:
    case BlockFormat::q5_k:
      return true;
    default:
      return false;
  }
}

// The range of the whole numbers that scale the groups of a super-block.
struct ScaleRange {
  int low, high;
};
ScaleRange scale_range(BlockFormat format) {
  switch (format) {
    case BlockFormat::q2_k:
      return {0, 15};
    case BlockFormat::q4_k:
    case BlockFormat::q5_k:
      return {0, 63};
    case BlockFormat::q6_k:
      return {-128, 127};
    default:
      return {-32, 31};  // Q3_K and IQ4_XS
  }
}

float block_error(const WeightGroup* groups, const BlockShape& shape, const BlockFit& fit) {
  float error = 0;
  for (std::size_t g = 0; g < shape.groups; ++g)
    error += line_error(groups[g], shape.low, shape.high, shape.table, fit.step[g], fit.offset[g]);
  return error;
}

void set_levels(const WeightGroup* groups, const BlockShape& shape, const BlockFit& fit,
                std::int8_t* levels) {
  for (std::size_t g = 0; g < shape.groups; ++g)
    line_levels(groups[g], shape.low, shape.high, shape.table, fit.step[g], fit.offset[g],
                levels + g * shape.group_size);
}

// ---- blocks of one group

void fit_single(BlockFormat format, const WeightGroup& group, const BlockShape& shape, BlockFit& fit) {
  const bool offset = has_offset(format);
  const FitLine line =
      offset ? search_line(group, shape.high, 0) : search_step(group, shape.low, shape.high, shape.table);
  fit.d = to_half(line.step);
  fit.second = to_half(line.offset);
  fit.step[0] = half_to_float(fit.d);
  fit.offset[0] = offset ? half_to_float(fit.second) : 0;
}

// ---- super-blocks

// Steps (and offsets) that the block's halves and the groups' whole numbers stand for.
void derive(BlockFormat format, const BlockShape& shape, BlockFit& fit) {
  const float d = half_to_float(fit.d), second = half_to_float(fit.second);
  for (std::size_t g = 0; g < shape.groups; ++g) {
    fit.step[g] = d * static_cast<float>(fit.scales[g]);
    fit.offset[g] = has_offset(format) ? -(second * static_cast<float>(fit.mins[g])) : 0;
  }
}

std::int16_t whole(float value, ScaleRange range) {
  return static_cast<std::int16_t>(
      std::clamp(std::nearbyint(value), static_cast<float>(range.low), static_cast<float>(range.high)));
}

// For each group the whole-number scale (and minimum) near its own that gives the least error.
void settle_groups(BlockFormat format, const WeightGroup* groups, const BlockShape& shape, BlockFit& fit) {
  const ScaleRange range = scale_range(format);
  const float d = half_to_float(fit.d), second = half_to_float(fit.second);
  const int reach_min = has_offset(format) ? 1 : 0;
  for (std::size_t g = 0; g < shape.groups; ++g) {
    float best = std::numeric_limits<float>::infinity();
    const int scale = fit.scales[g], min = fit.mins[g];
    for (int s = std::max(range.low, scale - 1); s <= std::min(range.high, scale + 1); ++s) {
      for (int m = std::max(0, min - reach_min); m <= std::min(range.high, min + reach_min); ++m) {
        const float step = d * static_cast<float>(s),
                    offset = reach_min != 0 ? -(second * static_cast<float>(m)) : 0;
        const float error = line_error(groups[g], shape.low, shape.high, shape.table, step, offset);
        if (error < best) {
          best = error;
          fit.scales[g] = static_cast<std::int16_t>(s);
          fit.mins[g] = static_cast<std::int16_t>(m);
        }
      }
    }
  }
  derive(format, shape, fit);
}

// The halves that fit best the levels and whole numbers chosen so far: least squares in one or two unknowns.
void settle_block(BlockFormat format, const WeightGroup* groups, const BlockShape& shape, BlockFit& fit) {
  double aa = 0, ab = 0, bb = 0, xa = 0, xb = 0;
  for (std::size_t g = 0; g < shape.groups; ++g) {
    std::int8_t levels[kMaxGroup];
    line_levels(groups[g], shape.low, shape.high, shape.table, fit.step[g], fit.offset[g], levels);
    for (std::size_t i = 0; i < shape.group_size; ++i) {
      const int level = shape.table ? kIQ4Levels[levels[i]] : levels[i];
      const double w = groups[g].w[i], x = groups[g].x[i], a = static_cast<double>(fit.scales[g]) * level,
                   b = -fit.mins[g];
      aa += w * a * a;
      ab += w * a * b;
      bb += w * b * b;
      xa += w * x * a;
      xb += w * x * b;
    }
  }
  const double determinant = aa * bb - ab * ab;
  if (has_offset(format) && determinant > 1e-9 * aa * bb) {
    fit.d = to_half(static_cast<float>((bb * xa - ab * xb) / determinant));
    fit.second = to_half(static_cast<float>((aa * xb - ab * xa) / determinant));
  } else if (!has_offset(format) && aa > 0) {
    fit.d = to_half(static_cast<float>(xa / aa));
  }
  derive(format, shape, fit);
}

// A first fit out of each group's own line, then groups and block in turn while the error falls.
void settle(BlockFormat format, const WeightGroup* groups, const BlockShape& shape, const FitLine* lines,
            float d, float second, BlockFit& best, float& best_error) {
  const ScaleRange range = scale_range(format);
  BlockFit fit;
  fit.d = to_half(d);
  fit.second = to_half(second);
  const float step = half_to_float(fit.d), least = half_to_float(fit.second);
  for (std::size_t g = 0; g < shape.groups; ++g) {
    fit.scales[g] = step == 0 ? static_cast<std::int16_t>(0) : whole(lines[g].step / step, range);
    fit.mins[g] =
        least == 0 ? static_cast<std::int16_t>(0) : whole(-lines[g].offset / least, {0, range.high});
  }
  derive(format, shape, fit);
  float last = std::numeric_limits<float>::infinity();
  for (int pass = 0; pass < 3; ++pass) {
    settle_groups(format, groups, shape, fit);
    const float error = block_error(groups, shape, fit);
    if (error < best_error) {
      best_error = error;
      best = fit;
    }
    if (!(error < 0.999F * last)) break;
    last = error;
    settle_block(format, groups, shape, fit);
  }
}

void fit_steps(BlockFormat format, const WeightGroup* groups, const BlockShape& shape, BlockFit& best) {
  const ScaleRange range = scale_range(format);
  FitLine lines[kMaxGroups];
  float extreme = 0;
  for (std::size_t g = 0; g < shape.groups; ++g) {
    lines[g] = search_step(groups[g], shape.low, shape.high, shape.table);
    if (std::abs(lines[g].step) > std::abs(extreme)) extreme = lines[g].step;
  }
  if (extreme == 0) return;
  float error = std::numeric_limits<float>::infinity();
  settle(format, groups, shape, lines, extreme / static_cast<float>(range.low), 0, best, error);
  settle(format, groups, shape, lines, extreme / static_cast<float>(range.high), 0, best, error);
}

void fit_lines(BlockFormat format, const WeightGroup* groups, const BlockShape& shape, BlockFit& best) {
  const auto high = static_cast<float>(scale_range(format).high);
  std::size_t above = 0;
  for (std::size_t g = 0; g < shape.groups; ++g) above += groups[g].least > 0 ? 1 : 0;
  float error = std::numeric_limits<float>::infinity();
  // A minimum is subtracted; where most groups lie above zero a negative scale of the minima adds it instead.
  for (const int sign : {-1, 1}) {
    if (sign > 0 && 2 * above < shape.groups) continue;
    FitLine lines[kMaxGroups];
    float step = 0, offset = 0;
    for (std::size_t g = 0; g < shape.groups; ++g) {
      lines[g] = search_line(groups[g], shape.high, sign);
      step = std::max(step, lines[g].step);
      offset = std::max(offset, std::abs(lines[g].offset));
    }
    settle(format, groups, shape, lines, step / high, static_cast<float>(-sign) * offset / high, best, error);
  }
}

}  // namespace

BlockShape block_shape(BlockFormat format) {
  switch (format) {
    case BlockFormat::q8_0:
      return {1, 32, -127, 127, false};
    case BlockFormat::q4_0:
      return {1, 32, -8, 7, false};
    case BlockFormat::q4_1:
      return {1, 32, 0, 15, false};
    case BlockFormat::q5_0:
      return {1, 32, -16, 15, false};
    case BlockFormat::q5_1:
      return {1, 32, 0, 31, false};
    case BlockFormat::q2_k:
      return {16, 16, 0, 3, false};
    case BlockFormat::q3_k:
      return {16, 16, -4, 3, false};
    case BlockFormat::q4_k:
      return {8, 32, 0, 15, false};
    case BlockFormat::q5_k:
      return {8, 32, 0, 31, false};
    case BlockFormat::q6_k:
      return {16, 16, -32, 31, false};
    case BlockFormat::iq4_nl:
      return {1, 32, 0, 15, true};
    case BlockFormat::iq4_xs:
      return {8, 32, 0, 15, true};
    default:
      break;
  }
  ensure(false, "{} is no block format", block_info(format).name);
  return {};
}

void fit_block(BlockFormat format, const float* x, const float* w, BlockFit& fit, std::int8_t* levels) {
  const BlockShape shape = block_shape(format);
  WeightGroup groups[kMaxGroups];
  for (std::size_t g = 0; g < shape.groups; ++g)
    load_group(x + g * shape.group_size, w == nullptr ? nullptr : w + g * shape.group_size, shape.group_size,
               groups[g]);
  fit = {};
  if (shape.groups > 1) {
    has_offset(format) ? fit_lines(format, groups, shape, fit) : fit_steps(format, groups, shape, fit);
    set_levels(groups, shape, fit, levels);
    return;
  }
  fit_single(format, groups[0], shape, fit);
  if (!shape.table) {
    BlockFit plain;
    std::int8_t ignored[kMaxGroup];
    fit_block_plain(format, x, plain, ignored);
    if (block_error(groups, shape, plain) < block_error(groups, shape, fit)) fit = plain;
  }
  set_levels(groups, shape, fit, levels);
}

void fit_block_plain(BlockFormat format, const float* x, BlockFit& fit, std::int8_t* levels) {
  const BlockShape shape = block_shape(format);
  ensure(shape.groups == 1 && !shape.table, "{} has no plain rounding", block_info(format).name);
  const std::size_t n = shape.group_size;
  float least = x[0], most = x[0], extreme = x[0];
  for (std::size_t i = 0; i < n; ++i) {
    least = std::min(least, x[i]);
    most = std::max(most, x[i]);
    if (std::abs(x[i]) > std::abs(extreme)) extreme = x[i];
  }
  const bool offset = has_offset(format), signed_byte = format == BlockFormat::q8_0;
  const auto top = static_cast<float>(shape.high);
  const float d = offset        ? (most - least) / top
                  : signed_byte ? std::abs(extreme) / top
                                : extreme / static_cast<float>(shape.low);
  const float inverse = d != 0 ? 1.F / d : 0.F, shift = 0.5F - static_cast<float>(shape.low);
  for (std::size_t i = 0; i < n; ++i) {
    const int level = signed_byte ? static_cast<int>(std::round(x[i] * inverse))
                      : offset    ? static_cast<int>((x[i] - least) * inverse + 0.5F)
                                  : static_cast<int>(x[i] * inverse + shift) + shape.low;
    levels[i] = static_cast<std::int8_t>(std::min(level, shape.high));
  }
  fit.d = float_to_half(d);
  fit.second = offset ? float_to_half(least) : static_cast<std::uint16_t>(0);
  fit.step[0] = half_to_float(fit.d);
  fit.offset[0] = offset ? half_to_float(fit.second) : 0;
}

int nearest_level(BlockFormat format, const BlockFit& fit, std::size_t group, float value) {
  const BlockShape shape = block_shape(format);
  const float step = fit.step[group];
  if (step == 0) return shape.table ? 8 : std::clamp(0, shape.low, shape.high);
  const float scaled = (value - fit.offset[group]) / step;
  if (shape.table) return nearest_iq4(scaled);
  return static_cast<int>(
      std::clamp(std::nearbyint(scaled), static_cast<float>(shape.low), static_cast<float>(shape.high)));
}

float level_value(BlockFormat format, const BlockFit& fit, std::size_t group, int level) {
  const int number = block_shape(format).table ? kIQ4Levels[level] : level;
  return fit.step[group] * static_cast<float>(number) + fit.offset[group];
}

}  // namespace sinew
