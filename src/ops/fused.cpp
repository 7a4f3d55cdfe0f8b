#include "ops/fused.hpp"

#include <ATen/Parallel.h>
#include <malloc.h>

#include <cstdlib>
#include <limits>
#include <mutex>
#include <string_view>
#include <unordered_map>

#include "base/error.hpp"
#include "base/threads.hpp"
#include "ops/openmp_threads.hpp"

namespace sinew {
namespace {

thread_local bool use_aten = false;

std::mutex buffer_mutex;
std::unordered_map<const c10::TensorImpl*, at::Tensor>& buffers() {
  static std::unordered_map<const c10::TensorImpl*, at::Tensor> map;
  return map;
}
at::Tensor buffer_of(const at::Tensor& weight) {
  const std::lock_guard lock(buffer_mutex);
  const auto found = buffers().find(weight.unsafeGetTensorImpl());
  return found == buffers().end() ? at::Tensor() : found->second;
}

// Memory that a step frees the next one takes again: given back to the system in between, each of its pages
// would be cleared and mapped anew (a tenth of a step).
void keep_freed_memory() {
#if defined(__GLIBC__)
  constexpr int kMost = 1 << 30;
  if (::mallopt(M_MMAP_THRESHOLD, kMost) == 0)
    ::mallopt(M_MMAP_THRESHOLD, 32 << 20);  // all that old ones allow
  ::mallopt(M_TRIM_THRESHOLD, std::numeric_limits<int>::max());
#endif
}

bool start() {
  keep_freed_memory();
#if !defined(__SANITIZE_THREAD__)  // which does not understand libgomp
  at::set_num_threads(default_threads());
  set_loop_runner(run_on_openmp);
#endif
  const char* const choice = std::getenv("SINEW_OPS");
  return choice == nullptr || std::string_view(choice) != "aten";
}

}  // namespace

bool fused(const at::Tensor& x) {
  static const bool allowed = start();
  return allowed && !use_aten && x.is_cpu() &&
         (x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16);
}

AtenPath::AtenPath() : before_(use_aten) { use_aten = true; }
AtenPath::~AtenPath() { use_aten = before_; }

GradientBuffers::~GradientBuffers() {
  const std::lock_guard lock(buffer_mutex);
  for (const auto& [weight, buffer] : added_) {
    const auto found = buffers().find(weight.unsafeGetTensorImpl());
    if (found != buffers().end() && found->second.is_same(buffer)) buffers().erase(found);
  }
}

void GradientBuffers::add(const at::Tensor& weight, const at::Tensor& buffer) {
  ensure(buffer.scalar_type() == at::kFloat && buffer.is_contiguous() && buffer.sizes() == weight.sizes(),
         "a gradient buffer is not fp32 or not shaped like its weight");
  const std::lock_guard lock(buffer_mutex);
  buffers()[weight.unsafeGetTensorImpl()] = buffer;
  added_.emplace_back(weight, buffer);
}

bool WeightGradient::is_direct(const at::Tensor& weight) {
  if (!weight.is_leaf()) return false;
  const at::Tensor& grad = weight.grad();
  if (!grad.defined()) return buffer_of(weight).defined();
  return grad.scalar_type() == at::kFloat && grad.is_contiguous();
}

WeightGradient::WeightGradient(const at::Tensor& weight, bool direct) : direct_(direct) {
  if (!direct) {
    sum_ = at::empty(weight.sizes(), weight.options().dtype(at::kFloat).requires_grad(false));
    return;
  }
  accumulate_ = weight.grad().defined();
  if (!accumulate_) weight.mutable_grad() = buffer_of(weight);
  sum_ = weight.grad();
}

void WeightGradient::zero() {
  sum_.zero_();
  accumulate_ = true;
}

}  // namespace sinew
