// Measured training steps: tokens a second, utilisation of the machine's own matrix-product peak, where the
// time goes, and what routing costs against a dense layer of equal work.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <ATen/core/Tensor.h>

#include "base/median_range.hpp"
#include "config/model_config.hpp"
#include "ops/op_times.hpp"

namespace sinew {

struct BenchPreset {
  std::string name;
  ModelConfig model;
  std::int64_t rows = 0, tokens = 0;  // of a batch
};
// S, M (DeepSeek-style mixtures of experts), gpt2 (the 124M shape with SwiGLU of equal work), long (M on rows
// of 4096), tiny (for tests). Throws UserError for other names.
BenchPreset bench_preset(std::string_view name);
std::vector<std::string> bench_preset_names();
// The preset with rows of `tokens` (and about as many tokens in all), or with `experts` to choose from: the
// work of a token stays the same but for attention's. 0: as it is.
void vary_preset(BenchPreset& preset, std::int64_t tokens, std::int64_t experts);

struct StepTimes {
  MedianRange seconds;      // of a step
  MedianRange peak;         // FLOP/s of libtorch's product right after it ...
  MedianRange utilisation;  // ... and the step's share of that: clock and load change both alike
  double forward = 0, backward = 0, optimizer = 0;  // means
  OpTimes operations;                               // means
  double flops = 0;  // of a step: 6 x active matrix parameters, and causal attention
  std::int64_t tokens = 0, parameters = 0;
  std::int64_t peak_bytes = 0;   // largest resident size of the process
  std::int64_t page_faults = 0;  // of a measured step; 0 without warm-up
  double loss = 0;               // of the last step
};
// `warmup` steps that do not count, then `steps` that do: forward, backward, gradient norm, AdamW, on random
// tokens.
StepTimes bench_steps(const BenchPreset& preset, at::ScalarType type, std::int64_t warmup,
                      std::int64_t steps);

struct RoutingTimes {
  MedianRange moe, dense;           // seconds, forward and backward of one layer
  MedianRange ratio, skewed_ratio;  // over the dense layer of the same round
};
// An MoE layer against a dense SwiGLU layer of equal active work, in turn; `skewed`: one expert gets half of
// all tokens.
RoutingTimes bench_routing(const BenchPreset& preset, at::ScalarType type, std::int64_t rounds);

}  // namespace sinew
