// The fitted constants of the cost model, all of them, in one file: data/planner/constants.json. `sinew plan
// fit` writes it from a file of published runs. Each has a prior (what physics or a data sheet suggests) and
// a spread: the fit pays for moving a constant away from its prior, so a constant no run speaks of stays put.
#pragma once

#include <array>
#include <filesystem>
#include <string>

namespace sinew::plan {

enum class Constant {
  gemm_ampere,
  gemm_hopper,
  gemm_blackwell,
  gemm_tpu,
  gemm_other,
  fp8_hopper,
  fp8_blackwell,
  fp8_other,
  int8_tpu,
  fp4_blackwell,
  maturity,
  gemm_bytes,
  quantise_bytes,
  attention_fused,
  attention_hopper_early,
  attention_hopper,
  attention_blackwell,
  attention_alignment,
  score_bytes,
  elementwise_bytes,
  elementwise_old,
  elementwise_eager,
  kernel_seconds,
  deepspeed_seconds,
  torch_products,
  power_exponent,
  tensor_link,
  tensor_hidden,
  collective_seconds,
  network_link,
  pipeline_blocking,
  data_hidden,
  shard_hidden,
  shard_interference,
  optimizer_bytes,
  dispatch_link,
  dispatch_hidden,
  permute_bytes,
  expert_seconds,
  expert_seconds_fp8,
  moe_seconds,
  imbalance,
  straggler,
  step_seconds,
  count_,
};
inline constexpr int constant_count = static_cast<int>(Constant::count_);

struct ConstantInfo {
  const char* name;
  double prior;
  double spread;  // standard deviation of log(value / prior)
  const char* meaning;
};
const ConstantInfo& info(Constant constant);

struct Constants {
  std::array<double, constant_count> values;
  double operator[](Constant c) const { return values[static_cast<int>(c)]; }
  double& operator[](Constant c) { return values[static_cast<int>(c)]; }
};

Constants prior_constants();
// data/planner/constants.json. Unknown or missing names throw UserError.
const Constants& fitted_constants();
Constants read_constants(const std::filesystem::path& path);
std::string write_constants(const Constants& constants, const std::string& how, const std::string& fitted_on);
// The checksum of the file of runs that data/planner/constants.json was fitted on.
std::string fitted_on();

}  // namespace sinew::plan
