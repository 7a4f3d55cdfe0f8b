#include "model/kv_cache.hpp"

#include "base/error.hpp"
#include "ops/tensor.hpp"

namespace sinew {
namespace {

at::Tensor store(at::Tensor& buffer, std::int64_t dim, std::int64_t length, const at::Tensor& added) {
  buffer.narrow(dim, length, added.size(dim)).copy_(added);
  return buffer.narrow(dim, 0, length + added.size(dim));
}

}  // namespace

KvCache::KvCache(const ModelConfig& config, std::int64_t rows, std::int64_t capacity, at::ScalarType dtype,
                 at::Device device)
    : rows_(rows), capacity_(capacity) {
  const auto options = at::TensorOptions(dtype).device(device);
  for (std::int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    if (config.attention == Attention::mla) {
      first_.push_back(at::empty({rows, capacity, config.kv_lora_rank + config.qk_rope_head_dim}, options));
    } else {
      first_.push_back(at::empty({rows, config.num_key_value_heads, capacity, config.head_dim}, options));
      second_.push_back(at::empty_like(first_.back()));
    }
  }
}

at::Tensor KvCache::append_latents(std::int64_t layer, const at::Tensor& latents) {
  return store(first_.at(static_cast<std::size_t>(layer)), 1, length_, latents);
}

KvCache::KeysValues KvCache::append(std::int64_t layer, const at::Tensor& keys, const at::Tensor& values) {
  const auto at = static_cast<std::size_t>(layer);
  return {store(first_.at(at), 2, length_, keys), store(second_.at(at), 2, length_, values)};
}

}  // namespace sinew
