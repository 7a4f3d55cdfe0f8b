#include "inspect/weight_memory.hpp"

#include <array>

#include "base/error.hpp"
#include "config/tensor_names.hpp"
#include "inspect/report_builder.hpp"
#include "storage/gguf.hpp"

namespace sinew {
namespace {

WeightFormat ggml_format(std::string_view shown, std::string_view name) {
  const GgmlType* type = ggml_type(name);
  ensure(type != nullptr, "no ggml type {}", name);
  return {shown, 8.0 * type->bytes / type->block, type->block};
}

bool is_gate(std::string_view name) { return name.ends_with(".gate.weight"); }

bool ends_text(std::string_view name) {
  return name == "model.embed_tokens.weight" || name == "lm_head.weight";
}

double fp8_bytes(const TensorSpec& spec, double elements) {
  if (ends_text(spec.name)) return 2 * elements;
  const auto blocks = [](std::int64_t size) { return static_cast<double>((size + 127) / 128); };
  return elements + 4 * blocks(spec.shape[0]) * blocks(spec.shape[1]);
}

}  // namespace

std::span<const WeightFormat> weight_formats() {
  static const std::array kFormats{
      WeightFormat{"F32", 32, 1},  WeightFormat{"BF16", 16, 1}, WeightFormat{"FP8", 8, 128},
      ggml_format("Q8_0", "q8_0"), ggml_format("Q6_K", "q6_K"), ggml_format("Q5_K", "q5_K"),
      ggml_format("Q4_K", "q4_K"), ggml_format("Q3_K", "q3_K"), ggml_format("Q2_K", "q2_K")};
  return kFormats;
}

double weight_bytes(const TensorSpec& spec, const WeightFormat& format) {
  const auto elements = static_cast<double>(element_count(spec.shape));
  if (spec.fp32) return 4 * elements;
  if (format.block == 1) return elements * format.bits / 8;
  if (spec.shape.size() < 2 || is_gate(spec.name)) return 4 * elements;
  if (format.name == "FP8") return fp8_bytes(spec, elements);
  const auto row = spec.shape[1];
  if (row % format.block == 0) return elements * format.bits / 8;
  return row % 32 == 0 ? elements * 34 / 32 : 2 * elements;
}

WeightMemory weight_memory(const ModelConfig& config, const WeightFormat& format) {
  WeightMemory memory;
  double routed = 0;  // of all routed experts outside MTP
  for (const TensorSpec& spec : tensor_specs(config)) {
    const double bytes = weight_bytes(spec, format);
    if (layer_of(spec.name).value_or(-1) >= config.num_hidden_layers) {
      memory.mtp += bytes;
      continue;
    }
    memory.total += bytes;
    if (spec.name.find(".experts.") != std::string::npos) routed += bytes;
  }
  const MoeConfig& moe = config.moe;
  const double idle = moe.n_routed_experts == 0 ? 0
                                                : 1 - static_cast<double>(moe.num_experts_per_tok) /
                                                          static_cast<double>(moe.n_routed_experts);
  memory.active = memory.total - idle * routed;
  return memory;
}

}  // namespace sinew
