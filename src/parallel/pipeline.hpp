// A rank's part of one training step through a pipeline: the actions of a schedule (schedule/schedule.hpp)
// executed in order, with messages to the ranks that hold the stages before and after.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "ops/group.hpp"
#include "schedule/schedule.hpp"

namespace sinew {

// What goes from one stage to the next for a micro-batch; the gradients of the same tensors come back.
using StageFlow = std::vector<at::Tensor>;

struct StageResult {
  StageFlow flow;   // empty after the last stage
  at::Tensor loss;  // scalar with gradient: what this stage adds to the objective; undefined: nothing
};

// The stages that a rank holds.
class StageModule {
 public:
  virtual ~StageModule() = default;
  // Tensors of the shapes and types that flow into any stage but the first for this micro-batch.
  virtual StageFlow empty_flow(int micro_batch) const = 0;
  // `in` wants gradients; it is empty at the first stage.
  virtual StageResult forward(int chunk, int micro_batch, const StageFlow& in) = 0;
  // After the (whole) backward pass of a micro-batch through a chunk: gradients are complete so far.
  virtual void after_backward(int chunk, int micro_batch) {
    static_cast<void>(chunk);
    static_cast<void>(micro_batch);
  }
};

struct PipelineStatistics {
  int peak_held = 0;        // (micro-batch, chunk) pairs between forward and the end of their input gradient
  int peak_unfinished = 0;  // .. and the end of their weight gradient
};

// Executes the actions of rank `pipeline->rank()`; a null group is a pipeline of one rank. Gradients go where
// backward() puts them. A backward action that is split leaves the gradients of matrices to the weight action
// (ops/weight_work.hpp). Time spent waiting for a neighbour is recorded as the pipeline's bubble, a send that
// has not gone out by the end as communication (base/spans.hpp).
PipelineStatistics run_pipeline(const Schedule& schedule, const GroupPtr& pipeline, StageModule& module);

// The same for a forward pass alone (evaluation): every micro-batch through every stage, without gradients.
void run_pipeline_forward(const Schedule& schedule, const GroupPtr& pipeline, StageModule& module);

}  // namespace sinew
