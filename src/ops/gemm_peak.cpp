#include "ops/gemm_peak.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <map>
#include <mutex>

#include "base/clock.hpp"
#include "kernels/matmul_peak.hpp"

namespace sinew {

double torch_gemm_peak(at::Device device, at::ScalarType type, double seconds) {
  const at::NoGradGuard no_grad;
  const std::int64_t n = device.is_cpu() ? 2048 : 8192;
  const auto options = at::TensorOptions().device(device).dtype(type);
  const at::Tensor a = at::full({n, n}, 0.5, options), b = at::full({n, n}, 0.25, options);  // both [n, n]
  at::Tensor c = at::empty({n, n}, options);
  const auto multiply = [&] {
    at::mm_out(c, a, b);
    if (!device.is_cpu()) (void)c[0][0].item();  // waits for the device
  };
  multiply();  // builds the kernel and touches the memory
  return 2.0 * static_cast<double>(n) * static_cast<double>(n) * static_cast<double>(n) /
         best_seconds(multiply, seconds);
}

GemmPeak torch_gemm_peak(at::Device device) {
  return {torch_gemm_peak(device, at::kFloat), torch_gemm_peak(device, at::kBFloat16)};
}

GemmPeak gemm_peak(at::Device device) {
  static std::mutex mutex;
  static std::map<std::string, GemmPeak> known;
  const std::lock_guard lock(mutex);
  if (const auto found = known.find(device.str()); found != known.end()) return found->second;
  GemmPeak peak = torch_gemm_peak(device);
  if (device.is_cpu()) {
    const MatmulPeak own = matmul_peak();
    peak = {std::max(peak.fp32, own.fp32), std::max(peak.bf16, own.bf16)};
  }
  return known[device.str()] = peak;
}

}  // namespace sinew
