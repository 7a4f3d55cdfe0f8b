#include "ops/swiglu_network.hpp"

#include "ops/experts_function.hpp"
#include "ops/fp8.hpp"
#include "ops/fused.hpp"
#include "ops/swiglu.hpp"
#include "ops/tensor.hpp"

namespace sinew {

at::Tensor swiglu_network(const at::Tensor& x, const at::Tensor& gate, const at::Tensor& up,
                          const at::Tensor& down) {
  if (!Fp8Products::active() && fused(x) && x.scalar_type() == gate.scalar_type() && x.size(0) > 0) {
    auto rows = std::make_shared<ExpertRows>();
    all_to_one(x.size(0), *rows);
    return fused_experts(x, {}, {}, rows, {gate, up, down});
  }
  return project(swiglu(project(x, gate), project(x, up)), down);
}

}  // namespace sinew
