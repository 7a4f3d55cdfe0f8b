// Measured seconds of the parts that a training step is made of: what the trainer's benchmark of single
// operations hands to the planner.
#pragma once

namespace sinew {

struct PartSeconds {
  double forward = 0, backward = 0;
};

// One micro-batch through one layer's part; `update` is of a whole step.
struct StepParts {
  PartSeconds embedding;
  PartSeconds attention, norms;  // norms: both of a layer, and its residual connections
  PartSeconds dense, moe;        // the feed-forward of a layer; moe with its gate and statistics
  PartSeconds head;              // final norm, output head and loss
  PartSeconds mtp_join;          // what a multi-token-prediction layer does before its block
  double update = 0;             // gradient norm, optimizer, gradients back to zero
};

}  // namespace sinew
