#include "model/rotary.hpp"

#include "config/rope.hpp"
#include "ops/tensor.hpp"

namespace sinew {

RotaryTable rotary_table(const ModelConfig& config, std::int64_t positions, at::ScalarType type,
                         at::Device device) {
  const auto frequencies = rope_frequencies(config);
  const auto wide = at::TensorOptions(at::kDouble);
  const auto turns = at::tensor(at::ArrayRef<double>(frequencies), wide);
  const auto angles = at::arange(positions, wide).unsqueeze(1) * turns.unsqueeze(0);
  const double factor = rope_attention_factor(config);
  return {(at::cos(angles) * factor).to(device, type), (at::sin(angles) * factor).to(device, type)};
}

}  // namespace sinew
