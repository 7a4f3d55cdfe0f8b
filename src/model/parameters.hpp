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

  const Partition& partition() const { return partition_; }
  const std::vector<Parameter>& list() const { return list_; }
  const at::Tensor& get(std::string_view name) const;  // throws when there is none
  at::Tensor find(std::string_view name) const;        // undefined when there is none
  std::size_t unit(std::string_view prefix) const;     // of the parameters whose names begin so

 private:
  void arrange_by_hooks(std::vector<PartSpec> parts, at::ScalarType dtype, at::Device device);

  Partition partition_;
  std::vector<Parameter> list_;
  std::map<std::string, std::size_t, std::less<>> index_;
};

// For whoever writes parameters in the order of the list: has each unit there while it is written.
class UnitWriter {
 public:
  explicit UnitWriter(const Partition& partition) : hooks_(partition.hooks.get()) {}
  explicit UnitWriter(const ParameterStore& parameters) : UnitWriter(parameters.partition()) {}
  ~UnitWriter() { finish(); }
  UnitWriter(const UnitWriter&) = delete;
  UnitWriter& operator=(const UnitWriter&) = delete;
  void move_to(std::size_t unit) {
    if (hooks_ == nullptr || (open_ && unit == unit_)) return;
    finish();
    hooks_->begin_writing(unit_ = unit);
    open_ = true;
  }
  void finish() {
    if (open_) hooks_->end_writing(unit_);
    open_ = false;
  }

 private:
  UnitHooks* hooks_;
  std::size_t unit_ = 0;
  bool open_ = false;
};

// normal(0, config.initializer_range) for matrices, keyed by (seed, name, index); one for norms; zero for
// biases and e_score_correction_bias.
void initialize(const ParameterStore& parameters, const ModelConfig& config, std::uint64_t seed);

}  // namespace sinew
