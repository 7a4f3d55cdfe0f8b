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

// Numbers of the whole matrix, of which `part` takes its box.
void fill_normal(const at::Tensor& tensor, const PartSpec& part, const Random& random, float deviation) {
  const auto columns = part.shape[1], all = part.whole.shape[1];
  const auto first = static_cast<std::uint64_t>(part.offset[0] * all + part.offset[1]);
  auto values = at::empty({tensor.numel()}, at::TensorOptions(at::kFloat));
  auto* out = values.data_ptr<float>();
  if (columns == all) {  // one run of numbers
    parallel_for(static_cast<std::size_t>(tensor.numel()), 1 << 14, [&](std::size_t begin, std::size_t end) {
      random.fill_normal(out + begin, first + begin, end - begin, 0, deviation);
    });
  } else {
    parallel_for(static_cast<std::size_t>(part.shape[0]), 64, [&](std::size_t begin, std::size_t end) {
      for (std::size_t row = begin; row < end; ++row)
        random.fill_normal(out + row * static_cast<std::size_t>(columns),
                           first + row * static_cast<std::uint64_t>(all), static_cast<std::uint64_t>(columns),
                           0, deviation);
    });
  }
  tensor.copy_(values.view(tensor.sizes()));
}

}  // namespace

ParameterStore::ParameterStore(const ModelConfig& config, at::ScalarType dtype, at::Device device,
                               const Partition& partition)
    : partition_(partition) {
  auto parts = part_specs(config, partition);
  if (partition.hooks != nullptr) {
    arrange_by_hooks(std::move(parts), dtype, device);
    return;
  }
  std::map<std::string, std::int64_t> family_sizes;
  for (const auto& part : parts) {
    if (const auto family = expert_family(part.whole.name)) ++family_sizes[*family];
  }
  std::map<std::string, std::pair<at::Tensor, std::int64_t>> slabs;  // and the next free expert
  for (auto& part : parts) {
    const auto& spec = part.whole;
    const auto options = at::TensorOptions(spec.fp32 ? wide_type(dtype) : dtype).device(device);
    at::Tensor tensor;
    if (const auto family = expert_family(spec.name)) {
      auto& [slab, next] = slabs[*family];
      if (!slab.defined()) {
        auto shape = part.shape;
        shape.insert(shape.begin(), family_sizes[*family]);
        slab = at::empty(shape, options);
      }
      tensor = slab.select(0, next++).detach();
    } else {
      tensor = at::empty(part.shape, options);
    }
    tensor.requires_grad_(!spec.buffer);
    index_[spec.name] = list_.size();
    list_.push_back({.name = spec.name, .tensor = tensor, .buffer = spec.buffer, .part = std::move(part)});
  }
}

const at::Tensor& ParameterStore::get(std::string_view name) const {
  const auto found = index_.find(name);
  ensure(found != index_.end(), "no parameter {}", name);
  return list_[found->second].tensor;
}

void ParameterStore::arrange_by_hooks(std::vector<PartSpec> parts, at::ScalarType dtype, at::Device device) {
  auto tensors = partition_.hooks->allocate(parts, dtype, device);
  for (std::size_t i = 0; i < parts.size(); ++i) {
    tensors[i].requires_grad_(!parts[i].whole.buffer);
    index_[parts[i].whole.name] = list_.size();
    const auto& whole = parts[i].whole;
    list_.push_back(
        {.name = whole.name, .tensor = tensors[i], .buffer = whole.buffer, .part = std::move(parts[i])});
  }
  partition_.hooks->adopt(tensors);
}

std::size_t ParameterStore::unit(std::string_view prefix) const {
  const auto found = index_.lower_bound(prefix);
  ensure(found != index_.end() && found->first.starts_with(prefix), "no parameters {}", prefix);
  return list_[found->second].part.unit;
}

at::Tensor ParameterStore::find(std::string_view name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? at::Tensor() : list_[found->second].tensor;
}

void initialize(const ParameterStore& parameters, const ModelConfig& config, std::uint64_t seed) {
  const at::NoGradGuard no_grad;
  UnitWriter writer(parameters);
  for (const auto& p : parameters.list()) {
    writer.move_to(p.part.unit);
    if (p.tensor.dim() >= 2) {
      fill_normal(p.tensor, p.part, Random(seed, p.name), static_cast<float>(config.initializer_range));
    } else {
      p.tensor.fill_(p.name.ends_with("bias") ? 0 : 1);
    }
  }
}

}  // namespace sinew
