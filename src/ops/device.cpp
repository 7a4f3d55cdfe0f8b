#include "ops/device.hpp"

#include <ATen/Context.h>
#include <ATen/detail/CUDAHooksInterface.h>

#include "base/error.hpp"

namespace sinew {

at::Device find_device(const std::string& name) {
  const int gpus = at::hasCUDA() ? at::detail::getCUDAHooks().getNumGPUs() : 0;
  if (name == "auto") return gpus > 0 ? at::Device(at::kCUDA, 0) : at::Device(at::kCPU);
  if (name == "cpu") return at::kCPU;
  const bool numbered = name.starts_with("cuda:") && name.size() > 5 && name.size() < 9 &&
                        name.find_first_not_of("0123456789", 5) == std::string::npos;
  require(name == "cuda" || numbered, "device \"{}\": write auto, cpu, cuda or cuda:N", name);
  const int index = numbered ? std::stoi(name.substr(5)) : 0;
  require(index < gpus, "device {}: libtorch sees {} GPUs here, counted from 0", name, gpus);
  return at::Device(at::kCUDA, static_cast<at::DeviceIndex>(index));
}

at::ScalarType find_number_type(const std::string& name) {
  if (name == "fp32") return at::kFloat;
  if (name == "fp64") return at::kDouble;
  require(name == "bf16", "number type \"{}\": write fp32, bf16 or fp64", name);
  return at::kBFloat16;
}

}  // namespace sinew
