// This machine as an accelerator: its product rates (measured by the caller, with the kernels that will run)
// and its memory, and what they predict for a run on it.
#pragma once

#include "plan/step.hpp"

namespace sinew::plan {

// Bytes/s of a = b + s * c over all threads, arrays far larger than any cache, best of five.
double measure_memory_bandwidth();

// `fp32`, `bf16`: FLOP/s of large products as measured.
Accelerator this_machine(double fp32, double bf16, double memory_bandwidth);

// The constants for a CPU: no kernel launches over a bus, no collectives, no host beside the device. Set by
// hand, not fitted: they wait for runs of the trainer on an idle machine.
Constants here_constants();

// A step of `batch` sequences in micro-batches on one process.
StepPrediction predict_here(const Accelerator& machine, const Network& network, const Job& job,
                            int micro_batch);

}  // namespace sinew::plan
