#include "ops/torch_facts.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <dlfcn.h>
#include <torch/version.h>

#include <fmt/format.h>

#include <regex>

#include "kernels/blas_core.hpp"

namespace sinew {
namespace {

template <class F>
F* symbol(const char* name) {
  return reinterpret_cast<F*>(::dlsym(RTLD_DEFAULT, name));
}

std::string onednn_version() {
  if (!at::hasMKLDNN()) return "";
  const std::string text = at::get_mkldnn_version();
  std::smatch match;
  return std::regex_search(text, match, std::regex(R"(v(\d+\.\d+(\.\d+)?))")) ? match[1].str() : text;
}

void read_blas(TorchFacts& facts) {
  facts.blas_core = openblas_core();
  if (auto* const config = symbol<const char*()>("openblas_get_config")) {
    facts.blas = config();
    auto* const parallel =
        symbol<int()>("openblas_get_parallel");  // 0: serial, 1: its own threads, 2: OpenMP
    facts.blas_own_threads = parallel != nullptr && parallel() == 1;
  } else if (at::hasMKL()) {
    facts.blas = "MKL";
  } else {
    facts.blas = "an unknown libblas";
  }
}

}  // namespace

TorchFacts torch_facts() {
  TorchFacts facts;
  facts.version = fmt::format("{}.{}", TORCH_VERSION_MAJOR, TORCH_VERSION_MINOR);
  facts.onednn = onednn_version();
  facts.threads = at::get_num_threads();
  read_blas(facts);
  facts.cuda_build = at::detail::getCUDAHooks().hasCUDA();
  for (int i = 0; facts.cuda_build && i < at::detail::getCUDAHooks().getNumGPUs(); ++i)
    facts.devices.push_back("cuda:" + std::to_string(i));
  return facts;
}

}  // namespace sinew
