// What the name of a tensor of tensor_specs() says of its place.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace sinew {

// Of "model.layers.<layer>. ..": MTP layers follow the main ones.
std::optional<std::int64_t> layer_of(std::string_view name);

// Of "..experts.<expert>. ..": a routed expert.
std::optional<std::int64_t> expert_of(std::string_view name);

// The dimension that tensor parallelism cuts, if any (model/partition.hpp lists which tensors are cut).
std::optional<std::size_t> tensor_cut(std::string_view name);

// Tensors with one of these are gathered and spread together: "embedding", "layer 3", "head".
std::string unit_name(std::string_view name);

}  // namespace sinew
