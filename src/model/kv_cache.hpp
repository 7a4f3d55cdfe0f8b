// The keys and values that attention keeps between calls of one generation.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "config/model_config.hpp"
#include "model/language_model.hpp"

namespace sinew {

// One buffer a layer (GQA: two), filled from position 0. Rows advance together.
class KvCache {
 public:
  KvCache(const ModelConfig& config, std::int64_t rows, std::int64_t capacity, at::ScalarType dtype,
          at::Device device);

  std::int64_t rows() const { return rows_; }
  std::int64_t length() const { return length_; }  // tokens held
  std::int64_t capacity() const { return capacity_; }

  // MLA: latents [B, T, kv_lora_rank + qk_rope_head_dim] of the tokens after length(); returns all of them,
  // [B, length()+T, ..].
  at::Tensor append_latents(std::int64_t layer, const at::Tensor& latents);
  // GQA: k, v [B, Hkv, T, head_dim] likewise.
  struct KeysValues {
    at::Tensor keys, values;
  };
  KeysValues append(std::int64_t layer, const at::Tensor& keys, const at::Tensor& values);

  void advance(std::int64_t tokens) { length_ += tokens; }  // after every layer has appended
  void truncate(std::int64_t length) { length_ = length; }

 private:
  std::int64_t rows_, capacity_, length_ = 0;
  std::vector<at::Tensor> first_, second_;
};

}  // namespace sinew
