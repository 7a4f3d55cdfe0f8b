#include <ATen/Parallel.h>
#include <fmt/format.h>

#include "base/machine.hpp"
#include "base/text.hpp"
#include "base/threads.hpp"
#include "cli/doctor.hpp"
#include "ops/gemm_peak.hpp"
#include "ops/torch_facts.hpp"

namespace sinew::cli {
namespace {

void add_advice(const TorchFacts& facts, std::vector<std::string>& advice) {
  if (facts.blas_own_threads)
    advice.emplace_back(
        "OpenBLAS runs a thread pool of its own beside libtorch's, up to 3 times slower in fp32: "
        "apt-get install libopenblas0-openmp");
  if (facts.blas_core.empty() && facts.blas != "MKL")
    advice.emplace_back(
        "libblas is not OpenBLAS, so fp32 products are slow: apt-get install libopenblas0-openmp");
  if (facts.onednn.empty())
    advice.emplace_back("this libtorch has no oneDNN, so bf16 products are slow: use Debian's libtorch-dev");
  if (!facts.cuda_build && !this_machine().gpus.empty())
    advice.emplace_back(
        "there is a GPU, but this libtorch is for processors only: unpack a CUDA libtorch from pytorch.org "
        "and "
        "configure with -DTorch_DIR=<it>/share/cmake/Torch");
}

void add_products(Diagnosis& diagnosis, const std::string& where, const GemmPeak& peak) {
  add_products(diagnosis, where, peak.fp32, peak.bf16);
}

}  // namespace

void add_torch_diagnosis(Diagnosis& diagnosis, bool measure) {
  at::set_num_threads(default_threads());
  const TorchFacts facts = torch_facts();
  auto& json = diagnosis.facts["libtorch"];
  json = {{"version", facts.version},
          {"onednn", facts.onednn},
          {"blas", facts.blas},
          {"blas_core", facts.blas_core},
          {"threads", facts.threads},
          {"blas_own_threads", facts.blas_own_threads},
          {"cuda_build", facts.cuda_build},
          {"devices", facts.devices}};
  const auto say = [&](const char* name, std::string value) {
    diagnosis.lines.emplace_back(name, std::move(value));
  };
  say("libtorch", fmt::format("{}, {} threads, oneDNN {}, {}", facts.version, facts.threads,
                              facts.onednn.empty() ? "missing" : facts.onednn,
                              facts.devices.empty() ? "no GPU" : join(facts.devices, ", ")));
  say("BLAS", facts.blas);
  add_advice(facts, diagnosis.advice);
  if (!measure) return;
  for (const auto& device : facts.devices.empty() ? std::vector<std::string>{"cpu"} : facts.devices)
    add_products(diagnosis, device == "cpu" ? "libtorch" : device, torch_gemm_peak(at::Device(device)));
}

}  // namespace sinew::cli
