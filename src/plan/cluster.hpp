// A cluster: accelerators, the levels of their network, storage, price, power and failures. Written by the
// user as TOML, or made of the catalogue's numbers for a name and a count.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "plan/failures.hpp"
#include "plan/setup.hpp"

namespace sinew::plan {

struct Cluster {
  std::string name;
  Accelerator chip;
  int count = 8;
  int pod = 0;               // accelerators that share the full network; 0: all
  double pod_bandwidth = 0;  // bytes/s of one accelerator between pods
  double latency_scaleup = 3.33e-6, latency_network = 3.7e-6;
  double storage_bandwidth = 0;  // bytes/s into checkpoint storage; 0: 1 GB/s an accelerator up to 2 TB/s
  double price_hour = 0;         // USD, one accelerator-hour
  double watts = 0;              // one accelerator with its share of host, network and cooling
  FailureModel failures = default_failures();
};

// Islands joined by slow links: each runs replicas of its own, and every `outer_steps` steps they average
// (low-communication training, DiLoCo: Douillard et al. 2023).
struct Islands {
  std::vector<Cluster> parts;
  double link = 10e9 / 8;  // bytes/s between two islands
  int outer_steps = 100;   // 1: gradients every step
};

Cluster cluster_of(const std::string& accelerator, int count);

// Keys: name, accelerator (name, or a table of numbers), count, price_per_hour, watts_per_accelerator, a
// [[level]] table for each level of the network from the inside (size, gbps, latency_us), [storage] gbps,
// [failures] with rates and times, and [[island]] tables with [islands] link_gbit and outer_steps. Unknown
// keys, zero bandwidths and negative numbers throw UserError, one line each.
Islands parse_cluster(const std::string& toml, const std::string& origin);
Islands read_cluster(const std::filesystem::path& path);

// The setup that a search starts from.
Setup setup_for(const Cluster& cluster, const Network& network, const Job& job);

}  // namespace sinew::plan
