#include "plan/data_traffic.hpp"

#include <algorithm>

namespace sinew::plan {

using C = Constant;

DataTraffic sharded_traffic(const Setup& s, const Constants& k, const RankParameters& p, double forward,
                            double backward) {
  const Layout& l = s.layout;
  const int group = l.data * l.context, shard = l.shard_group > 0 ? std::min(l.shard_group, group) : group;
  const double weight_bytes = 2;
  const auto traffic = [&](double bytes, int ranks, int stride) {
    return gather_seconds(s, k, bytes, ranks, s.software.single_rail ? 1 : local_members(s, ranks, stride));
  };
  const int expert_group = std::max(1, group * l.tensor / std::max(1, l.expert * l.expert_tensor));
  const int expert_shard = std::min(expert_group, shard);
  const double gather = traffic(p.dense * weight_bytes, shard, l.tensor) +
                        traffic(p.expert * weight_bytes, expert_shard, l.expert);
  const double scatter = traffic(p.dense * s.software.gradient_bytes, shard, l.tensor) +
                         traffic(p.expert * s.software.gradient_bytes, expert_shard, l.expert);
  DataTraffic d;
  const double hidden = s.software.overlap_data ? k[C::shard_hidden] : 0;
  const double back = (l.zero >= 3 ? gather : 0) + scatter;
  d.each = std::max(0.0, gather - hidden * forward) + std::max(0.0, back - hidden * backward);
  const double share = std::min(1.0, (gather + back) / std::max(1e-12, forward + backward));
  d.slow_down = 1 + k[C::shard_interference] * share;
  if (shard < group) {  // copies of the shards agree once a step
    const double bytes = (p.dense + p.expert) / shard * s.software.gradient_bytes;
    const double bandwidth =
        s.pod > 0 && s.pod_bandwidth > 0 ? s.pod_bandwidth : s.chip.network * k[C::network_link];
    d.shown += std::max(0.0, 2 * bytes / bandwidth - hidden * backward);
  }
  return d;
}

DataTraffic replicated_traffic(const Setup& s, const Constants& k, const RankParameters& p, double forward,
                               double backward) {
  const Layout& l = s.layout;
  const int group = l.data * l.context;
  const int expert_group = std::max(1, group * l.tensor / std::max(1, l.expert * l.expert_tensor));
  const auto traffic = [&](double bytes, int ranks, int stride) {
    return gather_seconds(s, k, bytes, ranks, local_members(s, ranks, stride));
  };
  const auto both = [&](double bytes_each) {
    return traffic(p.dense * bytes_each, group, l.tensor) +
           traffic(p.expert * bytes_each, expert_group, l.tensor * l.expert);
  };
  // DeepSpeed's pipeline of 2021-22 reduced whole gradients before it kept its shard.
  const double scatter = both(s.software.gradient_bytes) * (s.software.deepspeed && l.zero > 0 ? 2 : 1);
  const double gather = both(l.zero == 0 ? s.software.gradient_bytes : 2);
  // Zero 2 outside a pipeline scatters after every micro-batch.
  const double times =
      l.zero >= 2 && l.pipeline == 1 ? static_cast<double>(std::max<std::int64_t>(1, s.micro_batches())) : 1;
  DataTraffic d;
  if (!s.software.overlap_data) {
    d.shown = times * scatter + gather;
    return d;
  }
  // With several chunks a rank, those that are done first send while the last group of micro-batches still
  // goes through the others.
  const double chunks = l.schedule == ScheduleKind::interleaved ? l.chunks : 1;
  const double group_size = static_cast<double>(std::min<std::int64_t>(s.micro_batches(), l.pipeline));
  const double windows = 1 / chunks + (chunks - 1) / chunks * group_size;
  const double hidden = k[C::data_hidden];
  if (l.zero == 0) {
    d.shown = std::max(0.0, scatter + gather - hidden * backward * windows);
  } else {
    d.shown = times * std::max(0.0, scatter - hidden * backward * windows) +
              std::max(0.0, gather - hidden * forward * windows);
  }
  return d;
}

double update_seconds(const Setup& s, const Constants& k, const RankParameters& p) {
  const Layout& l = s.layout;
  const int group = l.data * l.context;
  const int expert_group = std::max(1, group * l.tensor / std::max(1, l.expert * l.expert_tensor));
  const double shard = l.zero == 0 ? 1 : (l.zero >= 3 && l.shard_group > 0 ? l.shard_group : group);
  const double expert_shard = l.zero == 0 ? 1 : expert_group;
  const double bytes = k[C::optimizer_bytes] * (p.dense / shard + p.expert / expert_shard);
  // Muon (Jordan et al. 2024): five Newton-Schulz steps of about 5 k FLOPs an element of a matrix whose
  // smaller side is k.
  double work = 0;
  if (s.job.optimizer == OptimizerKind::muon) {
    const double h = static_cast<double>(s.network.hidden);
    const double inner = s.network.experts > 0 ? std::min(h, static_cast<double>(s.network.expert_ffn)) : h;
    work = 25 * (h * p.dense / shard + inner * p.expert / expert_shard) / product_rate(s, k, Precision::bf16);
  }
  return work + (l.offload ? bytes / s.chip.host_link : bytes / s.chip.memory_bandwidth);
}

}  // namespace sinew::plan
