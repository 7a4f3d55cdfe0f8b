#include "ops/checkpoint.hpp"

#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

namespace sinew {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

thread_local bool in_second_run = false;

struct SecondRun {
  bool before = in_second_run;
  SecondRun() { in_second_run = true; }
  ~SecondRun() { in_second_run = before; }
  SecondRun(const SecondRun&) = delete;
  SecondRun& operator=(const SecondRun&) = delete;
};

// Carries the function through the context's saved data.
struct Body : torch::CustomClassHolder {
  TensorFunction function;
  std::size_t inputs = 0;
};

struct Checkpoint : torch::autograd::Function<Checkpoint> {
  // `tensors`: the inputs, then the parameters.
  static variable_list forward(AutogradContext* ctx, const c10::intrusive_ptr<Body>& body,
                               at::TensorList tensors) {
    ctx->saved_data["body"] = c10::IValue::make_capsule(body);
    ctx->save_for_backward(tensors.vec());
    return body->function(tensors.slice(0, body->inputs).vec());
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto body = c10::static_intrusive_pointer_cast<Body>(ctx->saved_data["body"].toCapsule());
    auto saved = ctx->get_saved_variables();
    variable_list inputs, wanted;
    std::vector<std::size_t> place;  // of each wanted tensor among `saved`
    for (std::size_t i = 0; i < saved.size(); ++i) {
      const bool wants = saved[i].requires_grad();
      if (i < body->inputs) inputs.push_back(saved[i].detach().requires_grad_(wants));
      if (!wants) continue;
      wanted.push_back(i < body->inputs ? inputs.back() : saved[i]);
      place.push_back(i);
    }
    variable_list outputs, output_grads;
    {
      const at::AutoGradMode with_grad(true);
      const SecondRun second;
      const auto all = body->function(inputs);
      for (std::size_t i = 0; i < all.size(); ++i) {
        if (!all[i].defined() || !all[i].requires_grad() || !grads[i].defined()) continue;
        outputs.push_back(all[i]);
        output_grads.push_back(grads[i]);
      }
    }
    variable_list out(saved.size() + 1);  // the first is the body's
    if (outputs.empty()) return out;
    const auto found = torch::autograd::grad(outputs, wanted, output_grads, {}, false, /*allow_unused=*/true);
    for (std::size_t i = 0; i < place.size(); ++i) out[place[i] + 1] = found[i];
    return out;
  }
};

}  // namespace

std::vector<at::Tensor> checkpoint(const TensorFunction& body, const std::vector<at::Tensor>& inputs,
                                   const std::vector<at::Tensor>& parameters) {
  if (!at::GradMode::is_enabled()) return body(inputs);
  auto held = c10::make_intrusive<Body>();
  held->function = body;
  held->inputs = inputs.size();
  std::vector<at::Tensor> tensors = inputs;
  tensors.insert(tensors.end(), parameters.begin(), parameters.end());
  return Checkpoint::apply(held, at::TensorList(tensors));
}

bool recomputing() { return in_second_run; }

}  // namespace sinew
