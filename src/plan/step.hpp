// The time and memory of one training step: layers into stages, stages through the simulated schedule, then
// gradients, weights and the update.
#pragma once

#include <string>
#include <vector>

#include "plan/cost.hpp"
#include "schedule/simulate.hpp"

namespace sinew::plan {

// Bytes on the fullest rank.
struct MemoryUse {
  double weights = 0, gradients = 0, optimizer = 0, activations = 0, logits = 0, buffers = 0, runtime = 0;
  double total() const { return weights + gradients + optimizer + activations + logits + buffers + runtime; }
};

// Seconds of a step by cause; they add up to the step.
struct TimeUse {
  PassCost work;      // of the busiest rank
  double bubble = 0;  // waiting in the pipeline
  double data = 0;    // data-parallel traffic that shows
  double optimizer = 0;
  double other = 0;  // stragglers, the step's own overhead
  double total() const { return work.total() + bubble + data + optimizer + other; }
};

struct StepPrediction {
  double seconds = 0;
  TimeUse time;
  MemoryUse memory;
  bool fits = false;             // memory.total() <= chip.memory_bytes
  double tokens_per_second = 0;  // of the whole machine
  double mfu = 0;          // model FLOPs over the peak of the job's precision (bf16 for 8-bit recipes: no)
  double model_flops = 0;  // of a step
  double bubble_share = 0;
};

// Layers on each of `stages` virtual stages: even where they divide; else with the embedding and the head
// counted as layers, where that divides (Llama 3, BLOOM); else cut so that the costliest stage is cheapest.
std::vector<int> split_layers(std::int64_t layers, int stages, const std::vector<double>& layer_weights,
                              double first_extra, double last_extra);

// What the degrees of data and pipeline parallelism, the schedule and the sharding do not change: a search
// makes it once for many layouts.
struct Kit {
  LayerCost kinds[4];  // dense, moe, dense with a window, moe with a window
  LayerCost embedding, head, mtp;
  double dense_parameters = 0, expert_parameters = 0;  // of all layers, on one tensor (expert) rank
  double table_parameters = 0;                         // the embedding, on one tensor rank
  double work = 0;  // s of one micro-batch through the whole model, forward and backward
};
Kit make_kit(const Setup& setup, const Constants& constants);

StepPrediction predict_step(const Setup& setup, const Constants& constants);
StepPrediction predict_step(const Kit& kit, const Setup& setup, const Constants& constants);
// A lower bound of the step's seconds, without the simulation.
double step_floor(const Kit& kit, const Setup& setup, const Constants& constants);

MemoryUse predict_memory(const Setup& setup, const Constants& constants);
MemoryUse predict_memory(const Kit& kit, const Setup& setup, const Constants& constants);
// A lower bound of every term, without the schedule.
MemoryUse memory_floor(const Kit& kit, const Setup& setup);

// Costs of the virtual stages, for drawing the pipeline.
std::vector<StageCost> stage_costs(const Setup& setup, const Constants& constants);

// Parameters on the fullest rank: ones every data rank holds alike, and experts'.
struct RankParameters {
  double dense = 0, expert = 0;
};
RankParameters rank_parameters(const Kit& kit, const Setup& setup);

}  // namespace sinew::plan
