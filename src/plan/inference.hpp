// Serving a model on a given machine: tokens a second, latency and cost by batch.
#pragma once

#include <string>
#include <vector>

#include "plan/setup.hpp"

namespace sinew::plan {

struct ServingJob {
  double weight_bits = 8;  // 2 to 16, with the scales of the format
  double kv_bits = 16;
  std::int64_t prompt = 2048, output = 512;  // tokens of a request
  int tensor = 1, expert = 1;                // parallel degrees; count = replicas x max of both
  bool experts_on_ssd = false;
  double ssd_bandwidth = 5e9;  // bytes/s of an accelerator
  double hot_experts = 0.5;    // share of expert reads that the cache in memory serves
};

struct ServingPoint {
  int batch = 1;                 // sequences decoded together on one replica
  double prefill_seconds = 0;    // time to first token of one prompt
  double step_seconds = 0;       // between tokens of a sequence
  double tokens_per_second = 0;  // output tokens of the whole machine
  double cost_per_million = 0;   // USD, prefill included
  double memory_bytes = 0;       // of one accelerator
  bool fits = true;
  std::string bound;  // what a decode step waits for
};

// Points for batches 1, 2, 4, .. as long as they fit (and the first that does not).
std::vector<ServingPoint> plan_serving(const Network& network, const Accelerator& chip, int count,
                                       const ServingJob& job);

// KV bytes a token over all layers: MLA keeps its latent and rope parts.
double kv_bytes_per_token(const Network& network, double bits);

}  // namespace sinew::plan
