// What the operations with a fused CPU path share. Such an operation runs on kernels/ for fp32 and bf16
// tensors on the CPU, and is composed of ATen operations for everything else; the composition is the
// reference.
#pragma once

#include <ATen/ATen.h>

#include <type_traits>
#include <utility>
#include <vector>

#include "kernels/bf16.hpp"

namespace sinew {

// True where the fused paths are to be used for x: on the CPU, fp32 or bf16, not switched off
// (SINEW_OPS=aten, or an AtenPath in scope).
bool fused(const at::Tensor& x);

// Within its scope operations called on this thread are composed of ATen's.
class AtenPath {
 public:
  AtenPath();
  ~AtenPath();
  AtenPath(const AtenPath&) = delete;
  AtenPath& operator=(const AtenPath&) = delete;

 private:
  bool before_;
};

// f(T{}) with T the element type of x: float or bf16.
template <class F>
auto with_type(const at::Tensor& x, F&& f) {
  return x.scalar_type() == at::kBFloat16 ? std::forward<F>(f)(bf16{}) : std::forward<F>(f)(float{});
}
template <class T>
T* data_of(const at::Tensor& x) {
  return x.defined() ? static_cast<T*>(x.data_ptr()) : nullptr;
}

// An autograd function takes what may be absent as an optional: an undefined input is refused.
using OptionalTensor = c10::optional<at::Tensor>;
inline OptionalTensor optional_of(const at::Tensor& x) {
  return x.defined() ? OptionalTensor(x) : c10::nullopt;
}
inline at::Tensor tensor_of(const OptionalTensor& x) { return x.has_value() ? *x : at::Tensor(); }

// Memory that a trainer keeps for gradients: fp32, shaped like the weight. While a weight's grad() is
// undefined the first gradient of it is written there, without a look at what it holds, and becomes grad().
// Forgotten with the object.
class GradientBuffers {
 public:
  GradientBuffers() = default;
  ~GradientBuffers();
  GradientBuffers(const GradientBuffers&) = delete;
  GradientBuffers& operator=(const GradientBuffers&) = delete;
  void add(const at::Tensor& weight, const at::Tensor& buffer);

 private:
  std::vector<std::pair<at::Tensor, at::Tensor>> added_;
};

// The weights' buffers, undefined where there is none: many at once wait for memory together instead of one
// after another.
std::vector<at::Tensor> gradient_buffers(at::TensorList weights);

// Where the gradient of a weight is computed. A leaf whose grad() is an fp32 tensor gets its gradient added
// there, in place and in fp32; one without a grad() but with a buffer (GradientBuffers) gets it written
// there; autograd is handed nothing. Any other weight gets a new tensor that goes through autograd in the
// weight's type.
class WeightGradient {
 public:
  explicit WeightGradient(const at::Tensor& weight);
  WeightGradient(const at::Tensor& weight, bool direct, const at::Tensor& buffer);
  static bool is_direct(const at::Tensor& weight);
  static bool is_direct(const at::Tensor& weight, const at::Tensor& buffer);
  bool direct() const { return direct_; }
  float* data() const { return sum_.data_ptr<float>(); }
  bool accumulate() const { return accumulate_; }  // else what data() holds is to be overwritten
  void zero();                                     // then accumulate()
  at::Tensor for_autograd(at::ScalarType type) const { return direct_ ? at::Tensor() : sum_.to(type); }

 private:
  at::Tensor sum_;
  bool direct_ = false, accumulate_ = false;
};

}  // namespace sinew
