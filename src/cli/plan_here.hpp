// `sinew plan --here`: what it asks of the part that needs libtorch (torch/plan_here.cpp).
#pragma once

#include <cstdint>
#include <string>

namespace sinew {
struct ModelConfig;
struct RunShape;
struct TrainingSetup;
}  // namespace sinew

namespace sinew::cli {

struct HereOptions {
  std::string model, precision = "fp32", recompute = "none";
  std::int64_t batch = 8, sequence = 256, micro_batch = 0;
  int ranks = 1;       // processes
  std::string layout;  // of them: "tensor=2 expert=2", the settings of [layout]
  bool json = false;
};

// Operations measured at the run's shapes, and what they predict.
void plan_here(const HereOptions& options);
// Small runs predicted and made, each on `ranks` processes; `only` to choose those so named.
void check_here(int ranks, int steps, const std::string& only, bool json);

// Seconds of a step of a run about to begin; 0 where the planner does not know its machine. All processes of
// the run call it together.
double planned_step(const TrainingSetup& setup);
// Bytes that such a run takes on this machine by the planner's formula.
double planned_memory(const ModelConfig& model, const RunShape& shape);

}  // namespace sinew::cli
