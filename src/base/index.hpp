// Sizes and indices of tensors: signed, so that the difference of two is one too.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sinew {

using index_t = std::int64_t;

// As containers and memcpy want it.
constexpr std::size_t size(index_t n) { return static_cast<std::size_t>(n); }

}  // namespace sinew
