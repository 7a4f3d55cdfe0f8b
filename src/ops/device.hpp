// Devices and number types by the names people give them.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

namespace sinew {

// "auto" (the first GPU where libtorch sees one, else the CPU), "cpu", "cuda" or "cuda:N". Throws UserError.
at::Device find_device(const std::string& name);

// "fp32", "fp64" or "bf16". Throws UserError.
at::ScalarType find_number_type(const std::string& name);

}  // namespace sinew
