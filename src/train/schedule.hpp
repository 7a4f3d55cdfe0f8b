// What a step does, as pure functions of the settings and the step's number (from 0).
#pragma once

#include <cstdint>

#include "config/run_config.hpp"

namespace sinew {

// The learning rate of `step`. cosine: Loshchilov & Hutter 2017. wsd: warmup, stable, linear decay (Hu et
// al. 2024, MiniCPM 4). step: times step_factor after each fraction of the run (DeepSeek-V2 3.1.2: 0.316 at
// 60% and 90%). All begin with a linear warmup that reaches the peak at step warmup - 1.
double learning_rate(const RunConfig& config, std::int64_t step);

// Sequences of `step`: from batch_start to batch in a straight line over batch_ramp steps, in whole
// micro-batches (DeepSeek-V3 4.2 grows its batch likewise).
std::int64_t batch_size(const RunConfig& config, std::int64_t step);

// The speed gamma of the loss-free bias at `step`.
double bias_speed(const RunConfig& config, std::int64_t step);

}  // namespace sinew
