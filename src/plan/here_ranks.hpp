// A step of a run on several processes of this machine, from what single operations and collectives take when
// all processes are at work.
#pragma once

#include "plan/step_traffic.hpp"
#include "schedule/simulate.hpp"
#include "schedule/step_parts.hpp"

namespace sinew::plan {

struct RanksRun {
  ModelConfig model;
  sinew::Layout layout;  // as check_layout() returns it
  StepWork work;
  int cores = 1;  // that the processes share
};

struct RanksPrediction {
  double seconds = 0;   // of a step; the sum of:
  double pipeline = 0;  // micro-batches through the stages, weights and gradients that travel meanwhile
  double state = 0;     // gradients summed and weights handed out once a step
  double update = 0, sums = 0;  // sums: numbers that all processes add up
  double bubble = 0;            // of `pipeline`, the share in which ranks wait
  double sent = 0;              // bytes that a process sends, the mean
};
RanksPrediction predict_ranks(const RanksRun& run, const StepParts& parts, const StepLinks& links);

// Costs of the stages of the whole pipeline, in order. Weights and gradients that travel with every
// micro-batch (zero 2 and 3) are in them.
std::vector<StageCost> ranks_stages(const RanksRun& run, const StepParts& parts, const StepLinks& links);

// simulate() where ranks share cores: costs are those of an action while all ranks work, and ranks that wait
// leave their share to the others.
double shared_makespan(const Schedule& schedule, const std::vector<StageCost>& stages, double send,
                       int cores);

}  // namespace sinew::plan
