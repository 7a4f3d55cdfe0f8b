// Where the tensors of the public checkpoint lie in a model's files.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/files.hpp"
#include "config/model_config.hpp"
#include "engine/weights.hpp"

namespace sinew::engine {

class TensorFinder {
 public:
  virtual ~TensorFinder() = default;
  // The tensor of this HF name as a matrix (a vector is one row); absent when the files do not have it.
  // Throws UserError when its shape or type is wrong.
  virtual std::optional<WeightMatrix> find(const std::string& name) const = 0;
  // GGUF: kv_b_proj kept as two tensors, the keys' half transposed head by head.
  virtual std::optional<WeightMatrix> key_b(const std::string& kv_b_name) const = 0;  // [heads * lora, nope]
  virtual std::optional<WeightMatrix> value_b(const std::string& kv_b_name) const = 0;  // [heads * v, lora]

  virtual const ModelConfig& config() const = 0;
  virtual RopeLayout rope_layout() const = 0;
  virtual std::shared_ptr<const void> files() const = 0;
  virtual std::vector<const MappedFile*> mapped() const { return {}; }  // of files()
};

std::unique_ptr<TensorFinder> open_tensors(const std::filesystem::path& path);

}  // namespace sinew::engine
