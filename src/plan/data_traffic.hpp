// What data parallelism adds to a step: gradients summed, weights gathered, the update.
#pragma once

#include "plan/step.hpp"

namespace sinew::plan {

struct DataTraffic {
  double shown = 0;      // s of a step outside computation
  double slow_down = 1;  // of the computation beside it
  double each = 0;       // s shown in each micro-batch (weights gathered again and again)
};

// Weights sharded over the data group (zero 3): gathered for each micro-batch forward and backward, gradients
// scattered; all of it behind computation as far as that lasts. `forward`, `backward`: s of a micro-batch.
DataTraffic sharded_traffic(const Setup& setup, const Constants& constants, const RankParameters& parameters,
                            double forward, double backward);
// Replicated weights: gradients reduced once a step behind the last backward pass, and with a sharded
// optimizer the new weights gathered behind the first forward pass.
DataTraffic replicated_traffic(const Setup& setup, const Constants& constants,
                               const RankParameters& parameters, double forward, double backward);
double update_seconds(const Setup& setup, const Constants& constants, const RankParameters& parameters);

}  // namespace sinew::plan
