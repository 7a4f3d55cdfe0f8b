#include "ops/embedding.hpp"

#include <torch/csrc/autograd/custom_function.h>

#include "ops/tensor.hpp"

namespace sinew {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct Embedding : torch::autograd::Function<Embedding> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& weight, const at::Tensor& tokens) {
    ctx->save_for_backward({tokens});
    ctx->saved_data["rows"] = weight.size(0);
    return at::embedding(weight, tokens);
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto tokens = ctx->get_saved_variables()[0];
    const auto wide = widen(grads[0]).contiguous();
    const auto rows = ctx->saved_data["rows"].toInt();
    const auto grad = at::embedding_dense_backward(wide, tokens, rows, /*padding_idx=*/-1, false);
    return {grad.to(grads[0].scalar_type()), at::Tensor()};
  }
};

}  // namespace

at::Tensor embed(const at::Tensor& weight, const at::Tensor& tokens) {
  return Embedding::apply(weight, tokens);
}

}  // namespace sinew
