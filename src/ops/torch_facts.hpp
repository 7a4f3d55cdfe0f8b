// The libtorch this program runs on: version, the libraries behind its matrix products, devices.
#pragma once

#include <string>
#include <vector>

namespace sinew {

struct TorchFacts {
  std::string version;    // "1.13": Debian's headers give a wrong third number
  std::string onednn;     // "2.6.3"; empty when libtorch was built without
  std::string blas;       // the library loaded, with its build: "OpenBLAS 0.3.21 ... USE_OPENMP SkylakeX"
  std::string blas_core;  // "SkylakeX"; empty when it is not OpenBLAS
  bool blas_own_threads = false;  // OpenBLAS built on a thread pool of its own, beside OpenMP's
  int threads = 0;                // that a product uses now
  bool cuda_build = false;
  std::vector<std::string> devices;  // "cuda:0"
};
TorchFacts torch_facts();

}  // namespace sinew
