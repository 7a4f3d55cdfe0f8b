#include "ops/sequence_parallel.hpp"

#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "config/traffic_formulas.hpp"
#include "ops/embedding.hpp"
#include "ops/fused.hpp"
#include "ops/linear_cross_entropy.hpp"
#include "ops/op_times.hpp"
#include "ops/tensor.hpp"

namespace sinew {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Carries the group through a context's saved data.
struct Held : torch::CustomClassHolder {
  explicit Held(GroupPtr g) : group(std::move(g)) {}
  GroupPtr group;
};
using HeldPtr = c10::intrusive_ptr<Held>;

void hold(AutogradContext* ctx, const HeldPtr& held) {
  ctx->saved_data["group"] = c10::IValue::make_capsule(held);
}
Group& held_by(AutogradContext* ctx) {
  return *c10::static_intrusive_pointer_cast<Held>(ctx->saved_data["group"].toCapsule())->group;
}

// [B, n, ..] -> [B, size * n, ..]
Tensor gather(const Tensor& x, Group& group) {
  auto shape = x.sizes().vec();
  shape.insert(shape.begin(), group.size());
  const auto pieces = at::empty(shape, x.options());  // [size, B, n, ..]
  group.all_gather(pieces.flatten(0, 1), x.contiguous());
  return pieces.transpose(0, 1).flatten(1, 2);
}

// [B, size * n, ..] -> [B, n, ..]
Tensor sum_scatter(const Tensor& x, Group& group) {
  const auto pieces = x.unflatten(1, {group.size(), -1}).transpose(0, 1).contiguous();  // [size, B, n, ..]
  const auto out = at::empty(pieces.sizes().slice(1), x.options());
  group.reduce_scatter(out, pieces.flatten(0, 1));
  return out;
}

struct Gather : torch::autograd::Function<Gather> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const HeldPtr& held) {
    hold(ctx, held);
    return gather(x, *held->group);
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    return {sum_scatter(grads[0], held_by(ctx)), Tensor()};
  }
};

struct SumScatter : torch::autograd::Function<SumScatter> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const HeldPtr& held) {
    hold(ctx, held);
    return sum_scatter(x, *held->group);
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    return {gather(grads[0], held_by(ctx)), Tensor()};
  }
};

// `index` less `first` where that lies in [0, rows), else `rows`.
Tensor local_rows(const Tensor& index, std::int64_t first, std::int64_t rows) {
  const auto local = index - first;
  return at::where(at::logical_and(local >= 0, local < rows), local, rows);
}

struct VocabularyCrossEntropy : torch::autograd::Function<VocabularyCrossEntropy> {
  // hidden [N, H] and targets [N] of all members; `own` [N] bool: this member's. The gradient of hidden is
  // this member's part of the sum over the vocabulary.
  static Tensor forward(AutogradContext* ctx, const Tensor& hidden, const Tensor& weight, std::int64_t first,
                        const Tensor& targets, const Tensor& own, const HeldPtr& held, bool need_gradient) {
    const OpTimer timer(OpClass::loss, false);
    Group& group = *held->group;
    const auto wide = wide_type(hidden.scalar_type());
    const auto tokens = hidden.size(0), rows = weight.size(0), chunk = cross_entropy_chunk(rows);
    const auto counted = targets != -100;
    const auto place = local_rows(targets, first, rows);  // `rows`: another member's
    auto losses = at::empty({tokens}, hidden.options().dtype(wide));
    Tensor d_hidden, d_weight;
    if (need_gradient) {
      d_hidden = at::empty_like(hidden);
      d_weight = at::zeros(weight.sizes(), weight.options().dtype(wide));
    }
    for (std::int64_t begin = 0; begin < tokens; begin += chunk) {
      const auto count = std::min(chunk, tokens - begin);
      const auto h = hidden.narrow(0, begin, count);
      const auto mask = counted.narrow(0, begin, count), at_row = place.narrow(0, begin, count).unsqueeze(1);
      const auto here = at_row < rows;  // [count, 1]
      const auto safe = at_row.clamp_max(rows - 1);
      auto logits = at::mm(h, weight.t()).to(wide);  // [count, v]
      const auto top = std::get<0>(logits.max(1));   // [count]
      group.all_reduce(top, Reduction::max);
      const auto target_logit =
          logits.gather(1, safe).sub_(top.unsqueeze(1)).masked_fill_(here.logical_not(), 0).squeeze(1);
      auto shares = logits.sub_(top.unsqueeze(1)).exp_();
      const auto sums = at::stack({shares.sum(1), target_logit});  // [2, count]
      group.all_reduce(sums);
      losses.narrow(0, begin, count).copy_((sums[0].log() - sums[1]).masked_fill_(mask.logical_not(), 0));
      if (!need_gradient) continue;
      shares.div_(sums[0].unsqueeze(1));  // softmax, less one at the target, zero where that does not count
      shares.scatter_add_(1, safe, here.to(wide).neg());
      shares.mul_(mask.unsqueeze(1));
      const auto narrow = shares.to(h.scalar_type());
      auto slice = d_hidden.narrow(0, begin, count);
      at::mm_out(slice, narrow, weight);
      d_weight.add_(at::mm(narrow.t(), h));
    }
    if (need_gradient) ctx->save_for_backward({d_hidden, d_weight, weight});
    return ordered_sum(losses.masked_fill(own.logical_not(), 0));
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const OpTimer timer(OpClass::loss, true);
    const auto saved = ctx->get_saved_variables();
    const auto &d_hidden = saved[0], &d_weight = saved[1], &weight = saved[2];
    const auto dx = (d_hidden * grads[0]).to(d_hidden.scalar_type());
    variable_list out{dx, Tensor(), Tensor(), Tensor(), Tensor(), Tensor(), Tensor()};
    if (WeightGradient::is_direct(weight)) {
      const at::NoGradGuard no_grad;
      weight.grad().add_(d_weight * grads[0]);
    } else {
      out[1] = (d_weight * grads[0]).to(weight.scalar_type());
    }
    return out;
  }
};

// True at this member's tokens. [B, size * n]
Tensor own_tokens(const Tensor& like, const Group& group) {
  auto own = at::zeros(like.sizes(), like.options().dtype(at::kBool));
  const auto n = like.size(1) / group.size();
  own.narrow(1, group.rank() * n, n).fill_(true);
  return own;
}

}  // namespace

Tensor gather_tokens(const Tensor& x, const GroupPtr& group) {
  return size_of(group) == 1 ? x : Gather::apply(x, c10::make_intrusive<Held>(group));
}

Tensor scatter_token_sum(const Tensor& x, const GroupPtr& group) {
  return size_of(group) == 1 ? x : SumScatter::apply(x, c10::make_intrusive<Held>(group));
}

Tensor gather_parts(const Tensor& own, std::int64_t whole, const GroupPtr& group) {
  const std::int64_t members = size_of(group);
  if (members == 1) return own;
  auto shape = own.sizes().vec();
  const auto most = shape[0] = (whole + members - 1) / members;  // parts travel at one length
  const auto padded = at::zeros(shape, own.options());
  padded.narrow(0, 0, own.size(0)).copy_(own);
  shape[0] = members * most;
  const auto all = at::empty(shape, own.options());
  group->all_gather(all, padded);
  std::vector<Tensor> parts;
  for (std::int64_t m = 0; m < members; ++m)
    parts.push_back(
        all.narrow(0, m * most, part_begin(whole, members, m + 1) - part_begin(whole, members, m)));
  return at::cat(parts);
}

Tensor vocabulary_embed(const Tensor& weight, std::int64_t first, const Tensor& tokens,
                        const GroupPtr& group) {
  if (size_of(group) == 1) return embed(weight, tokens);
  const auto place = local_rows(tokens, first, weight.size(0));
  const auto elsewhere = place == weight.size(0);
  // Tokens of other members' rows look up any row and count as zero, also in its gradient.
  const auto part = embed(weight, place.masked_fill(elsewhere, 0)).masked_fill(elsewhere.unsqueeze(-1), 0);
  return scatter_token_sum(part, group);
}

Tensor vocabulary_cross_entropy(const Tensor& hidden, const Tensor& weight, std::int64_t first,
                                const Tensor& targets, const GroupPtr& group) {
  const auto width = hidden.size(-1);
  if (size_of(group) == 1)
    return linear_cross_entropy(hidden.reshape({-1, width}), weight, targets.reshape({-1}));
  const bool need_gradient = at::GradMode::is_enabled() && (hidden.requires_grad() || weight.requires_grad());
  return VocabularyCrossEntropy::apply(gather_tokens(hidden, group).reshape({-1, width}), weight, first,
                                       targets.reshape({-1}), own_tokens(targets, *group).reshape({-1}),
                                       c10::make_intrusive<Held>(group), need_gradient);
}

}  // namespace sinew
