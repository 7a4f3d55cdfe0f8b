// The token embedding.
#pragma once

#include <ATen/core/Tensor.h>

namespace sinew {

// weight [V, H], tokens [..] int64 -> [.., H]. The gradient of a row is summed in fp32 for half types, in
// the order of the tokens.
at::Tensor embed(const at::Tensor& weight, const at::Tensor& tokens);

}  // namespace sinew
