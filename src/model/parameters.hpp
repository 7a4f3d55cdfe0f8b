// The parameters of a network by their public names, and their initial values.
#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "model/language_model.hpp"

namespace sinew {

class ParameterStore {
 public:
  // One leaf tensor for each of part_specs(config, partition), its values undefined. The experts of a layer
  // lie one after another in memory, so that an operation can take them as one [E, out, in] tensor.
  ParameterStore(const ModelConfig& config, at::ScalarType dtype, at::Device device,
                 const Partition& partition = {});

  const std::vector<Parameter>& list() const { return list_; }
  const at::Tensor& get(std::string_view name) const;  // throws when there is none
  at::Tensor find(std::string_view name) const;        // undefined when there is none
  std::size_t unit(std::string_view prefix) const;     // of the parameters whose names begin so

 private:
  std::vector<Parameter> list_;
  std::map<std::string, std::size_t, std::less<>> index_;
};

// normal(0, config.initializer_range) for matrices, keyed by (seed, name, index); one for norms; zero for
// biases and e_score_correction_bias.
void initialize(const ParameterStore& parameters, const ModelConfig& config, std::uint64_t seed);

}  // namespace sinew
