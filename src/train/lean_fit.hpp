// How much dense compute reaches a loss: a law through the losses of dense networks, turned round.
#pragma once

#include <optional>
#include <span>

namespace sinew {

struct LossPoint {
  double compute = 0;  // FLOPs, positive
  double loss = 0;     // nats a token
};

// loss = floor + scale * (compute / reference)^-exponent
struct PowerLaw {
  double floor = 0, scale = 0, exponent = 0, reference = 1;
  double rms = 0;  // of the residuals, nats a token
  double loss(double compute) const;
  // The compute at which the law has this loss; nothing at or below the floor.
  std::optional<double> compute(double loss) const;
};

// Least squares in the loss over floor >= 0, scale and exponent. Under four different computes the floor is
// 0: three numbers would go through anything. Throws UserError: under two different computes, or losses that
// do not fall as compute grows.
PowerLaw fit_power_law(std::span<const LossPoint> points);

// The same between neighbouring points alone, in which the loss falls in a straight line over log compute
// (points of one compute by their mean). Nothing beyond the ends, where there is nothing to go between.
std::optional<double> interpolated_compute(std::span<const LossPoint> points, double loss);

}  // namespace sinew
