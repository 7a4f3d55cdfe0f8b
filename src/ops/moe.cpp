#include "ops/moe.hpp"

#include <algorithm>

#include <torch/csrc/autograd/custom_function.h>

#include "base/error.hpp"
#include "ops/experts_function.hpp"
#include "ops/fp8.hpp"
#include "ops/fused.hpp"
#include "ops/swiglu.hpp"
#include "ops/swiglu_network.hpp"
#include "ops/tensor.hpp"

namespace sinew {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// rows [M, H] -> [N, H]: the sum over k of the row in slot[n, k]; slot M stands for a row of zeros.
Tensor sum_slots(const Tensor& rows, const Tensor& slot) {
  const auto tokens = slot.size(0), choices = slot.size(1);
  if (rows.size(0) == tokens * choices) {
    return rows.index_select(0, slot.view(-1)).view({tokens, choices, -1}).sum(1);
  }
  const auto padded = at::cat({rows, at::zeros({1, rows.size(1)}, rows.options())});
  return padded.index_select(0, slot.view(-1)).view({tokens, choices, -1}).sum(1);
}

struct Slices {
  std::vector<std::int64_t> offsets;
  std::int64_t experts() const { return static_cast<std::int64_t>(offsets.size()) - 1; }
  std::int64_t count(std::int64_t e) const { return offsets[e + 1] - offsets[e]; }
  Tensor of(const Tensor& rows, std::int64_t e) const { return rows.narrow(0, offsets[e], count(e)); }
};

// out[slice e] = x[slice e] times weights[e] (transposed if asked).
void expert_products(Tensor& out, const Tensor& x, at::TensorList weights, const Slices& slices,
                     bool transpose) {
  for (std::int64_t e = 0; e < slices.experts(); ++e) {
    if (slices.count(e) == 0) continue;
    auto target = slices.of(out, e);
    at::mm_out(target, slices.of(x, e), transpose ? weights[e].t() : weights[e]);
  }
}

// Per expert: grad[slice]^T times x[slice], zero for an empty one.
void weight_gradients(variable_list& out, const Tensor& grad, const Tensor& x, const Slices& slices) {
  for (std::int64_t e = 0; e < slices.experts(); ++e) {
    out.push_back(slices.count(e) > 0 ? at::mm(slices.of(grad, e).t(), slices.of(x, e))
                                      : at::zeros({grad.size(1), x.size(1)}, x.options()));
  }
}

struct MoeExperts : torch::autograd::Function<MoeExperts> {
  // `parameters` holds E gate, E up and E down matrices.
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& weights, const Dispatch& where,
                        at::TensorList parameters) {
    const Slices slices{where.offsets};
    const auto E = slices.experts(), M = where.assignment.size(0), I = parameters[0].size(0);
    const auto token = at::div(where.assignment, weights.size(1), "floor");
    const auto rows = x.index_select(0, token);  // [M, H]
    auto gate = at::empty({M, I}, x.options()), up = at::empty({M, I}, x.options());
    expert_products(gate, rows, parameters.slice(0, E), slices, true);
    expert_products(up, rows, parameters.slice(E, E), slices, true);
    auto inner = at::silu(gate).mul_(up);  // [M, I]
    inner = weigh(inner, slot_weights(weights, where.assignment));
    auto out = at::empty({M, x.size(1)}, x.options());
    expert_products(out, inner, parameters.slice(2 * E, E), slices, true);

    variable_list saved{x, weights, where.assignment, where.slot, gate, up};
    saved.insert(saved.end(), parameters.begin(), parameters.end());
    ctx->save_for_backward(saved);
    ctx->saved_data["offsets"] = where.offsets;
    return sum_slots(out, where.slot);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const auto &x = saved[0], &weights = saved[1], &assignment = saved[2], &slot = saved[3];
    const auto &gate = saved[4], &up = saved[5];
    const at::TensorList parameters = at::TensorList(saved).slice(6);
    const Slices slices{ctx->saved_data["offsets"].toIntVector()};
    const auto E = slices.experts();
    const auto token = at::div(assignment, weights.size(1), "floor");
    const auto rows = x.index_select(0, token), grad_out = grads[0].index_select(0, token);  // [M, H]
    const auto w = slot_weights(weights, assignment);                                        // [M, 1]

    const auto inner = at::silu(gate).mul_(up);
    auto grad_weighed = at::empty_like(inner);  // d loss / d (w * inner)
    expert_products(grad_weighed, grad_out, parameters.slice(2 * E, E), slices, false);
    const auto grad_w = (widen(grad_weighed) * widen(inner)).sum(1).to(weights.scalar_type());
    const auto grad = swiglu_backward(weigh(grad_weighed, w), gate, up);

    auto grad_rows = at::empty_like(rows), other = at::empty_like(rows);
    expert_products(grad_rows, grad.gate, parameters.slice(0, E), slices, false);
    expert_products(other, grad.up, parameters.slice(E, E), slices, false);
    grad_rows.add_(other);
    const auto grad_weights = sum_slots(grad_w.view({-1, 1}), slot.view({-1, 1})).view_as(weights);

    variable_list out{sum_slots(grad_rows, slot), grad_weights, Tensor()};
    weight_gradients(out, grad.gate, rows, slices);
    weight_gradients(out, grad.up, rows, slices);
    weight_gradients(out, grad_out, weigh(inner, w), slices);
    return out;
  }

 private:
  static Tensor slot_weights(const Tensor& weights, const Tensor& assignment) {
    return weights.reshape({-1}).index_select(0, assignment).unsqueeze(1);
  }
  static Tensor weigh(const Tensor& inner, const Tensor& w) { return (inner * w).to(inner.scalar_type()); }
};

// Expert by expert of products in FP8.
Tensor fp8_experts(const Tensor& x, const Tensor& weights, const Dispatch& where,
                   const ExpertWeights& experts) {
  const Slices slices{where.offsets};
  const auto rows = x.index_select(0, at::div(where.assignment, weights.size(1), "floor"));  // [M, H]
  std::vector<Tensor> parts;
  for (std::int64_t e = 0; e < slices.experts(); ++e) {
    if (slices.count(e) == 0) continue;
    const auto own = slices.of(rows, e);
    const auto& gate = experts.gate[static_cast<std::size_t>(e)];
    parts.push_back(swiglu_network(own, gate, experts.up[static_cast<std::size_t>(e)],
                                   experts.down[static_cast<std::size_t>(e)]));
  }
  if (parts.empty()) return at::zeros_like(x);
  const auto w = weights.reshape({-1}).index_select(0, where.assignment).unsqueeze(1);  // [M, 1]
  return sum_slots((at::cat(parts) * w).to(x.scalar_type()), where.slot);
}

std::shared_ptr<const ExpertRows> sorted_rows(const Dispatch& where) {
  auto rows = std::make_shared<ExpertRows>();
  rows->tokens = where.slot.size(0);
  rows->top_k = where.slot.size(1);
  rows->offsets.assign(where.offsets.begin(), where.offsets.end());
  const auto* const assignment = where.assignment.data_ptr<std::int64_t>();
  rows->slots.assign(assignment, assignment + where.assignment.numel());
  rows->token_of.resize(rows->slots.size());
  const auto top_k = static_cast<std::int32_t>(rows->top_k);
  std::transform(rows->slots.begin(), rows->slots.end(), rows->token_of.begin(),
                 [top_k](std::int32_t slot) { return slot / top_k; });
  return rows;
}

}  // namespace

Dispatch dispatch(const Tensor& experts, const Tensor& kept, std::int64_t n_experts) {
  const auto device = experts.device();
  const auto ids = experts.to(at::kCPU).contiguous();
  const auto keep = kept.defined() ? kept.to(at::kCPU).contiguous() : Tensor();
  const auto* id = ids.data_ptr<std::int64_t>();
  const auto* in = keep.defined() ? keep.data_ptr<bool>() : nullptr;
  const auto total = ids.numel();

  Dispatch where;
  where.offsets.assign(n_experts + 1, 0);
  for (std::int64_t a = 0; a < total; ++a) {
    if (in == nullptr || in[a]) ++where.offsets[id[a] + 1];
  }
  for (std::int64_t e = 0; e < n_experts; ++e) where.offsets[e + 1] += where.offsets[e];
  const auto slots = where.offsets.back();
  where.assignment = at::empty({slots}, ids.options());
  where.slot = at::empty_like(ids);
  auto* assignment = where.assignment.data_ptr<std::int64_t>();
  auto* slot = where.slot.data_ptr<std::int64_t>();
  auto next = where.offsets;
  for (std::int64_t a = 0; a < total; ++a) {
    slot[a] = in == nullptr || in[a] ? next[id[a]]++ : slots;
    if (slot[a] < slots) assignment[slot[a]] = a;
  }
  where.assignment = where.assignment.to(device);
  where.slot = where.slot.to(device);
  return where;
}

Tensor moe_experts(const Tensor& x, const Tensor& weights, const Dispatch& where,
                   const ExpertWeights& experts, const Tensor& addend) {
  ensure(experts.gate.size() + 1 == where.offsets.size() && experts.up.size() == experts.gate.size() &&
             experts.down.size() == experts.gate.size(),
         "dispatch to {} experts, weights of {}", where.offsets.size() - 1, experts.gate.size());
  std::vector<Tensor> parameters = experts.gate;
  parameters.insert(parameters.end(), experts.up.begin(), experts.up.end());
  parameters.insert(parameters.end(), experts.down.begin(), experts.down.end());
  if (Fp8Products::active()) {
    const auto y = fp8_experts(x, weights, where, experts);
    return addend.defined() ? y + addend : y;
  }
  if (fused(x) && x.scalar_type() == parameters[0].scalar_type() && weights.scalar_type() == at::kFloat)
    return fused_experts(x, weights, addend, sorted_rows(where), parameters);
  const auto y = MoeExperts::apply(x, weights, where, at::TensorList(parameters));
  return addend.defined() ? y + addend : y;
}

}  // namespace sinew
