// A mixture of experts whose experts lie on several processes: tokens travel to them and the results back.
// Nothing is dropped; an expert or a process that gets no token takes part all the same.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>

#include "model/partition.hpp"
#include "ops/moe.hpp"

namespace sinew {

// As moe_experts() over all experts, of which `local` are this process's. x [N, H]; experts, weights [N, K];
// `kept` [N, K] bool or undefined. `beside` is computed while tokens travel (the shared experts: [N, H] or
// undefined) and added. With expert_in_node and expert_across_nodes set, a token is sent once to each node
// that has some of its experts and forwarded inside (DeepSeek-V3 section 3.2.2).
at::Tensor experts_elsewhere(const at::Tensor& x, const at::Tensor& weights, const at::Tensor& experts,
                             const at::Tensor& kept, std::int64_t n_experts, const ExpertWeights& local,
                             const Partition& partition, const std::function<at::Tensor()>& beside);

}  // namespace sinew
