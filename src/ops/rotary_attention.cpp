#include "ops/rotary_attention.hpp"

#include <torch/csrc/autograd/custom_function.h>

#include "kernels/attention.hpp"
#include "ops/attention.hpp"
#include "ops/fused.hpp"
#include "ops/op_times.hpp"
#include "ops/rope.hpp"

namespace sinew {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Element `offset` of each head of x [B, T, heads, d].
template <class T>
HeadView<T> heads_of(const Tensor& x, std::int64_t offset = 0) {
  return {data_of<std::remove_const_t<T>>(x) + offset, x.stride(1), x.stride(2)};
}
// x [B, T, d] as one head of all.
template <class T>
HeadView<T> shared_head(const Tensor& x) {
  return {data_of<std::remove_const_t<T>>(x), x.stride(1), 0};
}

// The innermost elements together and tokens at a constant distance, as a HeadView says it.
Tensor regular(const Tensor& x) {
  const bool is = x.stride(-1) == 1 && x.stride(0) == x.stride(1) * x.size(1);
  return is ? x : x.contiguous();
}

struct Fused : torch::autograd::Function<Fused> {
  // MLA: k is kv and v is undefined; GQA: k_pe is undefined.
  static Tensor forward(AutogradContext* ctx, const Tensor& q, const Tensor& k,
                        const OptionalTensor& maybe_k_pe, const OptionalTensor& maybe_v, const Tensor& cos,
                        const Tensor& sin, const OptionalTensor& maybe_documents, bool interleaved,
                        double scale) {
    const OpTimer timer(OpClass::attention, false);
    const auto k_pe = tensor_of(maybe_k_pe), v = tensor_of(maybe_v), documents = tensor_of(maybe_documents);
    const auto value = v.defined() ? v.size(3) : k.size(3) - (q.size(3) - k_pe.size(2));
    const auto out = at::empty({q.size(0), q.size(1), q.size(2) * value}, q.options());
    const auto lse = at::empty({q.size(0), q.size(2), q.size(1)}, q.options().dtype(at::kFloat));
    ctx->save_for_backward({q, k, k_pe, v, cos, sin, documents, out, lse});
    ctx->saved_data["interleaved"] = interleaved;
    ctx->saved_data["scale"] = scale;
    const auto s = sizes(q, k, k_pe, v, cos, sin, documents, interleaved, scale);
    with_type(q, [&]<class T>(T) {
      attention_forward<T>(active_isa(), s, inputs<T>(s, q, k, k_pe, v),
                           {data_of<T>(out), out.size(2), value}, lse.data_ptr<float>());
    });
    return out;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const OpTimer timer(OpClass::attention, true);
    const auto saved = ctx->get_saved_variables();
    const auto &q = saved[0], &k = saved[1], &k_pe = saved[2], &v = saved[3], &out = saved[7];
    const auto s = sizes(q, k, k_pe, v, saved[4], saved[5], saved[6], ctx->saved_data["interleaved"].toBool(),
                         ctx->saved_data["scale"].toDouble());
    const auto like = [](const Tensor& x) {
      return x.defined() ? at::empty(x.sizes(), x.options()) : Tensor();
    };
    const auto dq = like(q), dk = like(k), dk_pe = like(k_pe), dv = like(v), d_out = grads[0].contiguous();
    with_type(q, [&]<class T>(T) {
      const auto width = out.size(2);
      AttentionGradients<T> g{heads_of<T>(dq), {}, {}, {}};
      if (v.defined()) {
        g.k_rotated = heads_of<T>(dk);
        g.v = heads_of<T>(dv);
      } else {
        g.k_plain = heads_of<T>(dk);
        g.k_rotated = shared_head<T>(dk_pe);
        g.v = heads_of<T>(dk, s.plain);
      }
      attention_backward<T>(active_isa(), s, inputs<T>(s, q, k, k_pe, v), {data_of<T>(out), width, s.value},
                            {data_of<T>(d_out), width, s.value}, saved[8].data_ptr<float>(), g);
    });
    return {dq, dk, dk_pe, dv, Tensor(), Tensor(), Tensor(), Tensor(), Tensor()};
  }

 private:
  static AttentionSizes sizes(const Tensor& q, const Tensor& k, const Tensor& k_pe, const Tensor& v,
                              const Tensor& cos, const Tensor& sin, const Tensor& documents, bool interleaved,
                              double scale) {
    const auto rotated = v.defined() ? q.size(3) : k_pe.size(2), plain = q.size(3) - rotated;
    return {.rows = q.size(0),
            .tokens = q.size(1),
            .heads = q.size(2),
            .kv_heads = k.size(2),
            .plain = plain,
            .rotated = rotated,
            .value = v.defined() ? v.size(3) : k.size(3) - plain,
            .scale = scale,
            .cos = cos.data_ptr<float>(),
            .sin = sin.data_ptr<float>(),
            .interleaved = interleaved,
            .documents = data_of<std::int32_t>(documents)};
  }
  template <class T>
  static AttentionInputs<T> inputs(const AttentionSizes& s, const Tensor& q, const Tensor& k,
                                   const Tensor& k_pe, const Tensor& v) {
    if (v.defined()) return {heads_of<const T>(q), {}, heads_of<const T>(k), heads_of<const T>(v)};
    return {heads_of<const T>(q), heads_of<const T>(k), shared_head<const T>(k_pe),
            heads_of<const T>(k, s.plain)};
  }
};

Tensor run_fused(const Tensor& q, const Tensor& k, const Tensor& k_pe, const Tensor& v, const Rotation& r,
                 double scale, const Tensor& documents) {
  const auto mask = documents.defined() ? documents.to(at::kInt).contiguous() : Tensor();
  return Fused::apply(regular(q), regular(k), optional_of(k_pe.defined() ? regular(k_pe) : k_pe),
                      optional_of(v.defined() ? regular(v) : v), r.cos.contiguous(), r.sin.contiguous(),
                      optional_of(mask), r.layout == RopeLayout::interleaved, scale);
}

}  // namespace

Tensor latent_attention(const Tensor& q, const Tensor& kv, const Tensor& k_pe, const Rotation& rotation,
                        double scale, const Tensor& documents) {
  if (fused(q)) return run_fused(q, kv, k_pe, {}, rotation, scale, documents);
  const auto rotated = k_pe.size(-1), nope = q.size(-1) - rotated, heads = q.size(2);
  const auto& [cos, sin, layout] = rotation;
  const auto q_pe = rope(q.narrow(-1, nope, rotated), cos, sin, layout);
  const auto shared = rope(k_pe.unsqueeze(2), cos, sin, layout).expand({-1, -1, heads, -1});
  const auto queries = at::cat(std::vector<Tensor>{q.narrow(-1, 0, nope), q_pe}, -1).transpose(1, 2);
  const auto keys = at::cat({kv.narrow(-1, 0, nope), shared}, -1).transpose(1, 2);
  const auto values = kv.narrow(-1, nope, kv.size(-1) - nope).transpose(1, 2);
  return attention(queries, keys, values, scale, documents).transpose(1, 2).flatten(2);
}

Tensor grouped_attention(const Tensor& q, const Tensor& k, const Tensor& v, const Rotation& rotation,
                         double scale, const Tensor& documents) {
  if (fused(q)) return run_fused(q, k, {}, v, rotation, scale, documents);
  const auto& [cos, sin, layout] = rotation;
  const auto queries = rope(q, cos, sin, layout).transpose(1, 2),
             keys = rope(k, cos, sin, layout).transpose(1, 2);
  return attention(queries, keys, v.transpose(1, 2), scale, documents).transpose(1, 2).flatten(2);
}

}  // namespace sinew
