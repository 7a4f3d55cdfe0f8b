#include "plan/here.hpp"

#include <unistd.h>

#include <algorithm>
#include <vector>

#include "base/clock.hpp"
#include "base/error.hpp"
#include "base/threads.hpp"

namespace sinew::plan {

double measure_memory_bandwidth() {
  constexpr std::size_t count = std::size_t{1} << 23;  // 64 MiB an array
  std::vector<double> a(count, 0), b(count, 1), c(count, 2);
  double best = 0;
  for (int round = 0; round < 5; ++round) {
    const double start = clock_seconds();
    const double s = 1 + round;
    parallel_for(count, std::size_t{1} << 16, [&](std::size_t begin, std::size_t end) {
      for (std::size_t i = begin; i < end; ++i) a[i] = b[i] + s * c[i];
    });
    const double seconds = clock_seconds() - start;
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
  k[Constant::step_seconds] = 2e-4;
  return k;
}

Setup here_setup(const Accelerator& machine, const HereRun& run) {
  Setup s;
  s.network = run.network;
  s.chip = machine;
  s.job = run.job;
  s.layout = run.layout;
  s.count = run.layout.ranks();
  s.chip.per_node = s.chip.scaleup_domain = std::max(1, s.count);
  s.chip.memory_bytes /= std::max(1, s.count);
  s.software.overlap_data = s.software.overlap_pipeline = false;
  s.software.gradient_bytes = 4;
  s.software.fp32_gradients_only = s.software.fused_experts = true;
  if (const std::string problem = layout_problem(s); !problem.empty()) fail("plan: {}", problem);
  return s;
}

namespace {

StepPrediction finished(StepPrediction p, const Kit& kit, const Setup& s, const Constants& k) {
  p.memory = predict_memory(kit, s, k);
  p.fits = p.memory.total() <= s.chip.memory_bytes;
  // Utilisation against the rate of the run's own arithmetic.
  const double peak = s.job.precision == Precision::fp32 ? s.chip.fp32 : s.chip.bf16;
  p.mfu = p.model_flops / p.seconds / (peak * s.count);
  return p;
}

void add(LayerCost& cost, Term term, const PartSeconds& part, bool again) {
  cost.forward[term] += part.forward;
  cost.backward_input[term] += part.backward / 2 + (again ? part.forward : 0);
  cost.backward_weight[term] += part.backward / 2;
}

// What was measured in the place of what the cost model says; bytes stay the model's.
void put(LayerCost& cost, const std::vector<std::pair<Term, PartSeconds>>& parts, bool again) {
  cost.forward = cost.backward_input = cost.backward_weight = {};
  for (const auto& [term, part] : parts) add(cost, term, part, again);
}

}  // namespace

StepPrediction predict_here(const Accelerator& machine, const HereRun& run) {
  const Setup s = here_setup(machine, run);
  const Constants k = here_constants();
  const Kit kit = make_kit(s, k);
  return finished(predict_step(kit, s, k), kit, s, k);
}

StepPrediction predict_here(const Accelerator& machine, const HereRun& run, const StepParts& parts) {
  const Setup s = here_setup(machine, run);
  Constants k = here_constants();
  Kit kit = make_kit(s, k);
  const bool again = s.layout.recompute.full;
  for (int i = 0; i < 4; ++i)
    put(kit.kinds[i],
        {{Term::attention, parts.attention},
         {Term::memory, parts.norms},
         {Term::products, i % 2 == 1 ? parts.moe : parts.dense}},
        again);
  put(kit.embedding, {{Term::memory, parts.embedding}}, false);
  put(kit.head, {{Term::products, parts.head}}, false);
  kit.mtp.forward = kit.mtp.backward_input = kit.mtp.backward_weight = {};
  for (std::int64_t i = 0; i < s.network.mtp_layers; ++i) {
    const LayerCost& block = kit.kinds[s.network.experts > 0 ? 1 : 0];
    for (const LayerCost* part : std::initializer_list<const LayerCost*>{&block, &kit.head, &kit.embedding}) {
      kit.mtp.forward += part->forward;
      kit.mtp.backward_input += part->backward_input;
      kit.mtp.backward_weight += part->backward_weight;
    }
    add(kit.mtp, Term::products, parts.mtp_join, false);
  }
  // The update, measured on all parameters, as traffic an element.
  const NetworkCounts n = count(s.network);
  k[Constant::optimizer_bytes] = parts.update * s.chip.memory_bandwidth / (n.total + n.mtp);
  return finished(predict_step(kit, s, k), kit, s, k);
}

}  // namespace sinew::plan
