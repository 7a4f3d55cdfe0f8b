// Small runs of many kinds, to hold predictions of this machine against.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "train/part_bench.hpp"

namespace sinew {

struct CheckRun {
  std::string name;
  ModelConfig model;
  RunShape shape;
  Layout layout{.data = 1};  // of runs on several processes
};

// Dense and mixture-of-experts, MLA and grouped-query attention, fp32 and bf16, rows of 128 to 2048 tokens,
// one and several micro-batches, with and without recomputation and multi-token prediction.
std::vector<CheckRun> check_runs();

// The same on two processes: data, sharded state of every stage, experts, tensor, context, and pipelines of
// every schedule; on four, what combines them.
std::vector<CheckRun> layout_check_runs(std::int64_t processes);

struct CheckedRun {
  double predicted = 0, measured = 0;  // s a step; measured: the mean
  double best = 0, worst = 0;
};
// `steps` steps after one that does not count, a round of the operations' benchmark after each, and what
// `predict` makes of those. With `mesh` all processes call it together.
CheckedRun check_run(const CheckRun& run, int steps,
                     const std::function<double(const StepParts&, const StepLinks&)>& predict,
                     const std::shared_ptr<Mesh>& mesh = nullptr);

}  // namespace sinew
