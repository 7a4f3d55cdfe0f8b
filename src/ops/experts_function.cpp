#include "ops/experts_function.hpp"

#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <optional>

#include "kernels/experts.hpp"
#include "ops/fused.hpp"
#include "ops/op_times.hpp"
#include "ops/weight_work.hpp"

namespace sinew {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Carries the sorted rows through the context's saved data.
struct Rows : torch::CustomClassHolder {
  std::shared_ptr<const ExpertRows> rows;
};

template <class T>
struct Pointers {
  std::vector<const T*> list;
  ExpertMatrices<T> matrices;

  explicit Pointers(at::TensorList parameters) {
    for (const Tensor& p : parameters) list.push_back(data_of<T>(p));
    const std::size_t experts = list.size() / 3;
    matrices = {parameters[0].size(1), parameters[0].size(0), list.data(), list.data() + experts,
                list.data() + 2 * experts};
  }
};

struct FusedExperts : torch::autograd::Function<FusedExperts> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const OptionalTensor& maybe_weights,
                        const OptionalTensor& maybe_addend, const c10::intrusive_ptr<Rows>& holder, bool keep,
                        at::TensorList parameters) {
    const OpTimer timer(parameters.size() > 3 ? OpClass::experts : OpClass::dense_ffn, false);
    const auto weights = tensor_of(maybe_weights), addend = tensor_of(maybe_addend);
    const ExpertRows& rows = *holder->rows;
    const auto y = at::empty(x.sizes(), x.options());
    Tensor saved;
    with_type(x, [&]<class T>(T) {
      const Pointers<T> p(parameters);
      if (keep) saved = at::empty({expert_saved_size(p.matrices, rows.rows())}, x.options());
      experts_forward<T>(active_isa(), p.matrices, rows, data_of<T>(x), data_of<float>(weights),
                         data_of<T>(addend), data_of<T>(y), data_of<T>(saved));
    });
    variable_list tensors{x, weights, saved};
    tensors.insert(tensors.end(), parameters.begin(), parameters.end());
    ctx->save_for_backward(tensors);
    ctx->saved_data["rows"] = c10::IValue::make_capsule(holder);
    ctx->saved_data["added"] = addend.defined();
    return y;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto holder = c10::static_intrusive_pointer_cast<Rows>(ctx->saved_data["rows"].toCapsule());
    const auto tensors = ctx->get_saved_variables();
    const auto &x = tensors[0], &weights = tensors[1], &saved = tensors[2];
    const at::TensorList parameters = at::TensorList(tensors).slice(3);
    const OpTimer timer(parameters.size() > 3 ? OpClass::experts : OpClass::dense_ffn, true);
    const auto dy = grads[0].contiguous();
    const auto dx = at::empty(x.sizes(), x.options());
    const auto d_weights = weights.defined() ? at::empty_like(weights) : Tensor();
    auto* const later = WeightWork::current();
    const bool leave = later != nullptr && Gradients::are_direct(parameters, gradient_buffers(parameters));
    Gradients g(leave ? at::TensorList() : parameters);
    with_type(x, [&]<class T>(T) {
      const Pointers<T> p(parameters);
      Tensor kept;
      if (leave) kept = at::empty({expert_kept_size(p.matrices, holder->rows->rows())}, x.options());
      experts_backward<T>(active_isa(), p.matrices, *holder->rows, data_of<T>(x), data_of<T>(dy),
                          data_of<float>(weights), data_of<T>(saved), nullptr, data_of<T>(dx),
                          data_of<float>(d_weights), g.wanted ? &g.where : nullptr, data_of<T>(kept));
      if (!leave) return;
      later->add([holder, x, dy, kept, list = parameters.vec()] {
        const OpTimer second(list.size() > 3 ? OpClass::experts : OpClass::dense_ffn, true);
        const Gradients late{list};
        const Pointers<T> matrices{list};
        experts_weight_gradients<T>(active_isa(), matrices.matrices, *holder->rows, data_of<T>(x),
                                    data_of<T>(dy), data_of<T>(kept), late.where);
      });
    });
    variable_list out{dx, d_weights, ctx->saved_data["added"].toBool() ? dy : Tensor(), Tensor(), Tensor()};
    for (std::size_t i = 0; i < parameters.size(); ++i)
      out.push_back(g.wanted ? g.list[i].for_autograd(parameters[i].scalar_type()) : Tensor());
    return out;
  }

 private:
  // All weights' gradients go to grad() in place, or all through autograd: mixed ones take the second way.
  struct Gradients {
    std::vector<WeightGradient> list;
    std::vector<float*> data;
    ExpertGradients where;
    bool wanted = false;

    static bool are_direct(at::TensorList parameters, const std::vector<Tensor>& buffers) {
      for (std::size_t i = 0; i < parameters.size(); ++i)
        if (!WeightGradient::is_direct(parameters[i], buffers[i])) return false;
      return true;
    }
    explicit Gradients(at::TensorList parameters) {
      const auto wants = [](const Tensor& p) { return p.requires_grad(); };
      wanted = std::any_of(parameters.begin(), parameters.end(), wants);
      if (!wanted) return;
      const auto buffers = gradient_buffers(parameters);
      const bool direct = are_direct(parameters, buffers);
      for (std::size_t i = 0; i < parameters.size(); ++i) {
        list.emplace_back(parameters[i], direct, buffers[i]);
        data.push_back(list.back().data());
      }
      const auto added_to = [](const WeightGradient& g) { return g.accumulate(); };
      const bool any = std::any_of(list.begin(), list.end(), added_to);
      for (WeightGradient& g : list)
        if (any && !g.accumulate()) g.zero();
      const std::size_t experts = data.size() / 3;
      where = {data.data(), data.data() + experts, data.data() + 2 * experts, any};
    }
  };
};

}  // namespace

Tensor fused_experts(const Tensor& x, const Tensor& weights, const Tensor& addend,
                     std::shared_ptr<const ExpertRows> rows, const std::vector<Tensor>& parameters) {
  auto holder = c10::make_intrusive<Rows>();
  holder->rows = std::move(rows);
  std::vector<Tensor> contiguous;
  bool keep = x.requires_grad() || (weights.defined() && weights.requires_grad());
  for (const Tensor& p : parameters) {
    contiguous.push_back(p.contiguous());
    keep = keep || p.requires_grad();
  }
  return FusedExperts::apply(x.contiguous(), optional_of(weights.defined() ? weights.contiguous() : weights),
                             optional_of(addend.defined() ? addend.contiguous() : addend), holder,
                             keep && at::GradMode::is_enabled(), at::TensorList(contiguous));
}

}  // namespace sinew
