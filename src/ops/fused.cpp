#include "ops/fused.hpp"

#include <ATen/Parallel.h>

#include <cstdlib>
#include <string_view>

#include "base/threads.hpp"
#include "ops/openmp_threads.hpp"

namespace sinew {
namespace {

thread_local bool use_aten = false;

bool start() {
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

bool WeightGradient::is_direct(const at::Tensor& weight) {
  if (!weight.is_leaf()) return false;
  const at::Tensor& grad = weight.grad();
  return grad.defined() && grad.scalar_type() == at::kFloat && grad.is_contiguous();
}

WeightGradient::WeightGradient(const at::Tensor& weight, bool direct)
    : sum_(direct ? weight.grad()
                  : at::empty(weight.sizes(), weight.options().dtype(at::kFloat).requires_grad(false))),
      direct_(direct) {}

}  // namespace sinew
