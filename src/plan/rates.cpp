// What the chip and the links of a setup reach.
#include <algorithm>
#include <cmath>

#include "plan/cost.hpp"

namespace sinew::plan {

using C = Constant;

double product_rate(const Setup& s, const Constants& k, Precision precision) {
  const Accelerator& chip = s.chip;
  const bool hopper = chip.family == "hopper",
             blackwell = chip.family == "blackwell" || chip.family == "rubin";
  const bool tpu = chip.family == "tpu";
  double rate = 0;
  const double bf16 = chip.bf16_achievable > 0 ? chip.bf16_achievable : chip.bf16 * (tpu ? 1 : 0.82);
  switch (precision) {
    case Precision::fp8:
    case Precision::fp8_block:
      rate = chip.fp8_achievable > 0 ? chip.fp8_achievable : chip.fp8 * 0.74;
      rate *= hopper ? k[C::fp8_hopper] : blackwell ? k[C::fp8_blackwell] : k[C::fp8_other];
      break;
    case Precision::fp4:
      rate = chip.fp4 * (blackwell ? k[C::fp4_blackwell] : 0.5);
      break;
    case Precision::int8:
      rate = chip.int8 * (tpu ? k[C::int8_tpu] : 0.6);
      break;
    case Precision::fp32:
      rate = chip.fp32 > 0 ? chip.fp32 * 0.95 : bf16 / 8;
      break;
    default:
      break;
  }
  if (rate <= 0)  // no such arithmetic: the products run in bf16
    rate = bf16 * (chip.family == "ampere" ? k[C::gemm_ampere]
                   : hopper                ? k[C::gemm_hopper]
                   : blackwell             ? k[C::gemm_blackwell]
                   : tpu                   ? k[C::gemm_tpu]
                                           : k[C::gemm_other]);
  if (chip.power_limit < 1) rate *= std::pow(chip.power_limit, k[C::power_exponent]);
  if (tpu) return rate;  // one compiler for every generation
  const double age = std::max(0.0, s.software.date - chip.year);
  return rate / (1 + k[C::maturity] * std::exp(-age));
}

int local_members(const Setup& s, int ranks, int stride) {
  const int domain = std::max(1, std::min(s.chip.scaleup_domain, s.count));
  return std::clamp(domain / std::max(1, stride), 1, std::max(1, ranks));
}

double ring_bandwidth(const Setup& s, const Constants& k, int ranks, int local) {
  const double fabric = s.chip.scaleup * k[C::tensor_link];
  if (local >= ranks) return fabric;
  const double cards = s.chip.network * k[C::network_link] * local;
  return local > 1 ? std::min(fabric, cards) : cards;
}

double gather_seconds(const Setup& s, const Constants& k, double bytes, int ranks, int local) {
  if (ranks <= 1) return 0;
  const double wait =
      k[C::collective_seconds] + 2 * s.latency_network * std::log2(static_cast<double>(ranks));
  return bytes * (ranks - 1) / ranks / ring_bandwidth(s, k, ranks, local) + wait;
}

}  // namespace sinew::plan
