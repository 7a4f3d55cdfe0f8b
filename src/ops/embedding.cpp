#include "ops/embedding.hpp"

#include <torch/csrc/autograd/custom_function.h>

#include "base/threads.hpp"
#include "ops/fused.hpp"
#include "ops/op_times.hpp"
#include "ops/tensor.hpp"

namespace sinew {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Row `token` of out [.., width] += its row of `grad`, in the order of the tokens; threads share the columns.
void add_rows(float* out, std::int64_t width, const at::Tensor& tokens, const at::Tensor& grad) {
  const auto count = tokens.numel();
  const auto* const token = tokens.data_ptr<std::int64_t>();
  with_type(grad, [&]<class T>(T) {
    const T* const in = data_of<T>(grad);
    parallel_for(static_cast<std::size_t>(width), 256, [&](std::size_t begin, std::size_t end) {
      for (std::int64_t t = 0; t < count; ++t)
        for (std::size_t i = begin; i < end; ++i)
          out[static_cast<std::size_t>(token[t] * width) + i] +=
              to_float(in[static_cast<std::size_t>(t * width) + i]);
    });
  });
}

struct Embedding : torch::autograd::Function<Embedding> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& weight, const at::Tensor& tokens) {
    const OpTimer timer(OpClass::embedding, false);
    ctx->save_for_backward({tokens, weight});
    ctx->saved_data["rows"] = weight.size(0);
    return at::embedding(weight, tokens);
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const OpTimer timer(OpClass::embedding, true);
    const auto saved = ctx->get_saved_variables();
    const auto &tokens = saved[0], &weight = saved[1];
    if (fused(grads[0]) && WeightGradient::is_direct(weight)) {
      WeightGradient gradient(weight);
      if (!gradient.accumulate()) gradient.zero();
      add_rows(gradient.data(), weight.size(1), tokens.contiguous(), grads[0].contiguous());
      return {at::Tensor(), at::Tensor()};
    }
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
