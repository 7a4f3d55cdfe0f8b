#include "plan/here.hpp"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <vector>

#include "base/error.hpp"
#include "base/threads.hpp"

namespace sinew::plan {

double measure_memory_bandwidth() {
  constexpr std::size_t count = std::size_t{1} << 23;  // 64 MiB an array
  std::vector<double> a(count, 0), b(count, 1), c(count, 2);
  double best = 0;
  for (int round = 0; round < 5; ++round) {
    const auto start = std::chrono::steady_clock::now();
    const double s = 1 + round;
    parallel_for(count, std::size_t{1} << 16, [&](std::size_t begin, std::size_t end) {
      for (std::size_t i = begin; i < end; ++i) a[i] = b[i] + s * c[i];
    });
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    best = std::max(best, 3.0 * 8 * count / std::max(seconds, 1e-9));
  }
  ensure(a[count / 2] == 11, "triad gave {}", a[count / 2]);
  return best;
}

Accelerator this_machine(double fp32, double bf16, double memory_bandwidth) {
  require(fp32 > 0 && memory_bandwidth > 0,
          "plan: this machine has no measured product rate or memory bandwidth");
  Accelerator a;
  a.name = "this machine";
  a.vendor = "";
  a.family = "cpu";
  a.year = 2000;  // no software is too young for it
  a.fp32 = fp32;
  a.bf16 = a.bf16_achievable = std::max(bf16, fp32);
  a.memory_bytes = static_cast<double>(sysconf(_SC_PHYS_PAGES)) * static_cast<double>(sysconf(_SC_PAGE_SIZE));
  a.memory_bandwidth = memory_bandwidth;
  a.per_node = a.scaleup_domain = 1;
  a.scaleup = a.network = memory_bandwidth / 4;  // loopback copies twice and is read twice
  a.host_link = memory_bandwidth;
  return a;
}

Constants here_constants() {
  Constants k = prior_constants();
  k[Constant::gemm_other] = 0.9;
  k[Constant::gemm_bytes] = 0.3;  // caches hold most of a block
  k[Constant::attention_fused] = 0.5;
  k[Constant::elementwise_bytes] = 1.5;
  k[Constant::kernel_seconds] = 1e-5;
  k[Constant::moe_seconds] = 5e-5;
  k[Constant::expert_seconds] = 2e-6;
  k[Constant::optimizer_bytes] = 28;
  k[Constant::straggler] = 1e-6;
  k[Constant::step_seconds] = 1e-3;
  return k;
}

StepPrediction predict_here(const Accelerator& machine, const Network& network, const Job& job,
                            int micro_batch) {
  Setup s;
  s.network = network;
  s.chip = machine;
  s.count = 1;
  s.job = job;
  s.layout.zero = 0;
  s.layout.micro_batch = micro_batch > 0 ? micro_batch : static_cast<int>(job.global_batch);
  if (const std::string problem = layout_problem(s); !problem.empty()) fail("plan: {}", problem);
  const Constants k = here_constants();
  StepPrediction p = predict_step(s, k);
  p.memory = predict_memory(s, k);
  p.fits = p.memory.total() <= machine.memory_bytes;
  // Utilisation against the rate of the run's own arithmetic.
  const double peak = job.precision == Precision::fp32 ? machine.fp32 : machine.bf16;
  p.mfu = p.model_flops / p.seconds / peak;
  return p;
}

}  // namespace sinew::plan
