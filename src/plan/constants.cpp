#include "plan/constants.hpp"

#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "base/files.hpp"
#include "plan/data_files.hpp"

namespace sinew::plan {
namespace {

constexpr ConstantInfo table[constant_count] = {
    {"gemm_ampere", 0.95, 0.1,
     "share of the best measured bf16 product rate that large products reach in training, A100"},
    {"gemm_hopper", 0.85, 0.1, "the same, Hopper: clocks fall under load"},
    {"gemm_blackwell", 0.85, 0.1, "the same, Blackwell"},
    {"gemm_tpu", 0.9, 0.1, "the same, TPU, of the peak"},
    {"gemm_other", 0.8, 0.15, "the same, other chips"},
    {"fp8_hopper", 0.8, 0.1, "the same for fp8 products, Hopper"},
    {"fp8_blackwell", 0.8, 0.1, "the same, Blackwell"},
    {"fp8_other", 0.75, 0.15, "the same, other chips"},
    {"int8_tpu", 0.75, 0.15, "the same for int8 products, TPU"},
    {"fp4_blackwell", 0.5, 0.3, "the same for fp4 products, Blackwell"},
    {"maturity", 0.25, 0.5, "extra time on a chip that has just come out; falls by e each year"},
    {"gemm_bytes", 1.0, 0.3,
     "products: memory traffic over that of reading both operands and writing the result once"},
    {"quantise_bytes", 1.0, 0.4, "8-bit products: traffic of casting and transposing over the ideal"},
    {"attention_fused", 0.65, 0.2, "flash attention's rate over that of large products"},
    {"attention_hopper_early", 0.5, 0.2,
     "the same, Hopper with kernels written for the chip before (PyTorch, or before 2024)"},
    {"attention_hopper", 0.7, 0.2, "the same, Hopper with its own kernels"},
    {"attention_blackwell", 0.55, 0.2, "the same, Blackwell"},
    {"attention_alignment", 0.35, 0.4, "exponent of the loss when a head's size is not a multiple of 64"},
    {"score_bytes", 1.0, 0.3, "unfused attention: traffic of the score matrix over the ideal"},
    {"elementwise_bytes", 1.2, 0.25, "norms, residuals, activations: traffic over the ideal"},
    {"elementwise_old", 1.5, 0.3, "the same, more for software before 2023"},
    {"elementwise_eager", 1.6, 0.3, "the same, more when each operation is a kernel"},
    {"kernel_seconds", 5e-6, 0.4, "s that a kernel costs beside its work"},
    {"deepspeed_seconds", 2e-3, 0.7,
     "s of a layer for one micro-batch in DeepSpeed's pipeline of 2021-22, beside its work"},
    {"torch_products", 1.0, 0.1,
     "products under PyTorch's own layers over those of the vendor's fused ones: time"},
    {"power_exponent", 0.5, 0.4, "product rate goes with (power limit / rated power) to this"},
    {"tensor_link", 0.75, 0.2, "share of the scale-up bandwidth that a collective reaches"},
    {"tensor_hidden", 0.6, 0.3,
     "share of tensor-parallel communication hidden where the software overlaps it"},
    {"collective_seconds", 1.5e-5, 0.4, "s to start a collective"},
    {"network_link", 0.75, 0.2, "share of the network bandwidth that a collective reaches"},
    {"pipeline_blocking", 0.5, 0.5, "share of a send between stages that stops both sides, without overlap"},
    {"data_hidden", 0.7, 0.15,
     "share of the backward (or forward) pass behind which data-parallel traffic hides"},
    {"shard_hidden", 0.85, 0.1, "the same where weights are sharded and gathered layer by layer"},
    {"shard_interference", 0.15, 0.5, "slow-down of computation by sharded-data traffic beside it"},
    {"optimizer_bytes", 40, 0.4, "bytes of memory traffic of the update, one parameter"},
    {"dispatch_link", 0.6, 0.3, "share of the bandwidth that an all-to-all reaches"},
    {"dispatch_hidden", 0.7, 0.3, "share of an all-to-all hidden where the software overlaps it"},
    {"permute_bytes", 2.0, 0.4, "sorting tokens by expert and back: traffic over one read and one write"},
    {"expert_seconds", 6e-6, 0.6, "s of each local expert of a layer, one pass"},
    {"expert_seconds_fp8", 1.5e-5, 0.6, "the same, more with 8-bit products"},
    {"moe_seconds", 2e-4, 0.6, "s of routing and synchronisation of a MoE layer, one pass"},
    {"imbalance", 1.12, 0.1, "fullest expert rank over the mean when routing is neither forced nor dropping"},
    {"straggler", 0.004, 0.6, "part of a step added by each doubling of the nodes"},
    {"step_seconds", 0.02, 0.6, "s of a step outside all of this"},
};

}  // namespace

const ConstantInfo& info(Constant constant) { return table[static_cast<int>(constant)]; }

Constants prior_constants() {
  Constants c;
  for (int i = 0; i < constant_count; ++i) c.values[i] = table[i].prior;
  return c;
}

Constants read_constants(const std::filesystem::path& path) {
  try {
    const auto document = nlohmann::json::parse(read_file(path, 1 << 20));
    Constants c;
    for (int i = 0; i < constant_count; ++i) {
      c.values[i] = document.at("constants").at(table[i].name).at("value").get<double>();
      require(c.values[i] > 0, "{}: {} must be positive", path.string(), table[i].name);
    }
    return c;
  } catch (const nlohmann::json::exception& error) {
    fail("{}: {}", path.string(), error.what());
  }
}

const Constants& fitted_constants() {
  static const Constants loaded = read_constants(data_dir() / "planner" / "constants.json");
  return loaded;
}

std::string fitted_on() {
  const auto path = data_dir() / "planner" / "constants.json";
  try {
    return nlohmann::json::parse(read_file(path, 1 << 20)).value("fitted_on", "");
  } catch (const nlohmann::json::exception& error) {
    fail("{}: {}", path.string(), error.what());
  }
}

std::string write_constants(const Constants& constants, const std::string& how,
                            const std::string& fitted_on_sum) {
  nlohmann::ordered_json document;
  document["how"] = how;
  document["fitted_on"] = fitted_on_sum;
  for (int i = 0; i < constant_count; ++i)
    document["constants"][table[i].name] = {{"value", constants.values[i]},
                                            {"prior", table[i].prior},
                                            {"spread", table[i].spread},
                                            {"meaning", table[i].meaning}};
  return document.dump(1) + "\n";
}

}  // namespace sinew::plan
