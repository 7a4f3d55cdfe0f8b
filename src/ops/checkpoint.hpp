// Activation recomputation (Chen et al. 2016).
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <vector>

namespace sinew {

using TensorFunction = std::function<std::vector<at::Tensor>(const std::vector<at::Tensor>&)>;

// body(inputs), keeping only `inputs` for the backward pass, which runs `body` again. `parameters` are the
// leaf tensors that body reads besides its inputs and that want gradients. Gradients are bit for bit those
// of body(inputs). body must compute the same on the same inputs; where it also records something it can
// tell the second run by `recomputing()`.
std::vector<at::Tensor> checkpoint(const TensorFunction& body, const std::vector<at::Tensor>& inputs,
                                   const std::vector<at::Tensor>& parameters = {});
bool recomputing();

}  // namespace sinew
