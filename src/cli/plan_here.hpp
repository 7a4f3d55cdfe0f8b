// `sinew plan --here`: what it asks of the part that needs libtorch (torch/plan_here.cpp).
#pragma once

#include <cstdint>
#include <string>

namespace sinew {
struct TrainingSetup;
}

namespace sinew::cli {

struct HereOptions {
  std::string model, precision = "fp32", recompute = "none";
  std::int64_t batch = 8, sequence = 256, micro_batch = 0;
  bool json = false;
};

// Operations measured at the run's shapes, and what they predict.
void plan_here(const HereOptions& options);
// Small runs predicted and made; `names` to choose some of them.
void check_here(int steps, const std::string& only, bool json);

// Seconds of a step of a run about to begin; 0 where the planner does not know its machine.
double planned_step(const TrainingSetup& setup);

}  // namespace sinew::cli
