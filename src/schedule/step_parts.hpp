// Measured seconds of the parts that a training step is made of: what the trainer's benchmarks of single
// operations and collectives hand to the planner.
#pragma once

#include <map>
#include <string>

namespace sinew {

struct PartSeconds {
  double forward = 0, backward = 0;
  double weight = 0;  // of `backward`, what a schedule that cuts it in two leaves for later
};

// One micro-batch through one layer's part, as one process of a layout works on it: its share of the heads,
// tokens and experts, with what it says to others meanwhile. `update` is of a whole step.
struct StepParts {
  PartSeconds embedding;
  PartSeconds attention, norms;  // norms: both of a layer, and its residual connections
  PartSeconds dense, moe;        // the feed-forward of a layer; moe with its gate and statistics
  PartSeconds head;              // final norm, output head and loss
  PartSeconds mtp_join;          // what a multi-token-prediction layer does before its block
  double update = 0;             // gradient norm, optimizer, gradients back to zero
};

// A collective (or message) of so many bytes sent by each process takes start + per_byte * bytes.
struct LinkRate {
  double start = 0, per_byte = 0;  // s
  double seconds(double bytes) const { return start + per_byte * bytes; }
};

// Of the groups of a layout along which state and activations travel: by (group, operation) as the counters
// of comm/traffic.hpp call them.
using StepLinks = std::map<std::pair<std::string, std::string>, LinkRate>;

}  // namespace sinew
