#include "model/parameters.hpp"

#include <cctype>
#include <optional>

#include "base/error.hpp"
#include "base/random.hpp"
#include "base/threads.hpp"
#include "ops/tensor.hpp"

namespace sinew {
namespace {

// "a.experts.7.w1.weight" -> "a.experts.*.w1.weight"; nothing for other names.
std::optional<std::string> expert_family(const std::string& name) {
  constexpr std::string_view mark = ".experts.";
  const auto at = name.find(mark);
  if (at == std::string::npos) return {};
  const auto begin = at + mark.size();
  auto end = begin;
  while (end < name.size() && std::isdigit(static_cast<unsigned char>(name[end])) != 0) ++end;
  if (end == begin) return {};
  return name.substr(0, begin) + "*" + name.substr(end);
}

void fill_normal(const at::Tensor& tensor, const Random& random, float deviation) {
  const auto count = static_cast<std::size_t>(tensor.numel());
  auto values = at::empty({tensor.numel()}, at::TensorOptions(at::kFloat));
  auto* out = values.data_ptr<float>();
  parallel_for(count, 1 << 14, [&](std::size_t begin, std::size_t end) {
    random.fill_normal(out + begin, begin, end - begin, 0, deviation);
  });
  tensor.copy_(values.view(tensor.sizes()));
}

}  // namespace

ParameterStore::ParameterStore(const ModelConfig& config, at::ScalarType dtype, at::Device device) {
  const auto specs = tensor_specs(config);
  std::map<std::string, std::int64_t> family_sizes;
  for (const auto& spec : specs) {
    if (const auto family = expert_family(spec.name)) ++family_sizes[*family];
  }
  std::map<std::string, std::pair<at::Tensor, std::int64_t>> slabs;  // and the next free expert
  for (const auto& spec : specs) {
    const auto options = at::TensorOptions(spec.fp32 ? wide_type(dtype) : dtype).device(device);
    at::Tensor tensor;
    if (const auto family = expert_family(spec.name)) {
      auto& [slab, next] = slabs[*family];
      if (!slab.defined()) {
        auto shape = spec.shape;
        shape.insert(shape.begin(), family_sizes[*family]);
        slab = at::empty(shape, options);
      }
      tensor = slab.select(0, next++).detach();
    } else {
      tensor = at::empty(spec.shape, options);
    }
    tensor.requires_grad_(!spec.buffer);
    index_[spec.name] = list_.size();
    list_.push_back({spec.name, tensor, spec.buffer});
  }
}

const at::Tensor& ParameterStore::get(std::string_view name) const {
  const auto found = index_.find(name);
  ensure(found != index_.end(), "no parameter {}", name);
  return list_[found->second].tensor;
}

at::Tensor ParameterStore::find(std::string_view name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? at::Tensor() : list_[found->second].tensor;
}

void initialize(const ParameterStore& parameters, const ModelConfig& config, std::uint64_t seed) {
  const at::NoGradGuard no_grad;
  for (const auto& [name, tensor, buffer] : parameters.list()) {
    if (tensor.dim() >= 2) {
      fill_normal(tensor, Random(seed, name), static_cast<float>(config.initializer_range));
    } else {
      tensor.fill_(name.ends_with("bias") ? 0 : 1);
    }
  }
}

}  // namespace sinew
