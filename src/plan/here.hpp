// This machine as an accelerator: its product rates (measured by the caller, with the kernels that will run)
// and its memory, and what they and its measured operations predict for a run on it.
#pragma once

#include "plan/step.hpp"
#include "schedule/step_parts.hpp"

namespace sinew::plan {

// Bytes/s of a = b + s * c over all threads, arrays far larger than any cache, best of five.
double measure_memory_bandwidth();

// `fp32`, `bf16`: FLOP/s of large products as measured.
Accelerator this_machine(double fp32, double bf16, double memory_bandwidth);

// The constants for a CPU: no kernel launches over a bus, no host beside the device. What they say of
// operations counts only where nothing was measured.
Constants here_constants();

// A run on this machine.
struct HereRun {
  Network network;
  Job job;
  Layout layout;  // ranks() of it are processes of this machine
};

// The setup of a run: the trainer's own bytes (fp32 gradients beside the weights, summed in place) and no
// overlap. Throws UserError with the rule that the layout breaks.
Setup here_setup(const Accelerator& machine, const HereRun& run);

// From the product rates alone.
StepPrediction predict_here(const Accelerator& machine, const HereRun& run);
// From the operations as measured at the run's shapes (schedule/step_parts.hpp): layers, embedding and head
// take what they took alone, the schedule and the collectives come from the model.
StepPrediction predict_here(const Accelerator& machine, const HereRun& run, const StepParts& parts);

}  // namespace sinew::plan
