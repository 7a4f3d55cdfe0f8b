// What is to be predicted: a network, the machines, how the work is laid out on them, and with what software.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "plan/hardware.hpp"
#include "plan/network.hpp"
#include "schedule/schedule.hpp"

namespace sinew::plan {

// Arithmetic of the big matrix products. Attention, the head and everything else stay in bf16 (or fp16).
enum class Precision { bf16, fp8, fp8_block, fp4, int8, fp32 };
Precision parse_precision(std::string_view name);  // throws UserError with the nearest name
std::string precision_name(Precision precision);

// What is computed again in the backward pass instead of kept.
struct Recompute {
  bool full = false;                      // whole layers
  bool attention = false;                 // the attention core
  bool mla_up = false;                    // MLA up-projections
  bool norm = false, activation = false;  // norms; the activation function's output
  bool mlp = false;                       // the (dense or expert) feed-forward
};
Recompute parse_recompute(std::string_view text);  // none, full, selective, or a list of parts
std::string recompute_name(const Recompute& recompute);

struct Layout {
  int data = 1, tensor = 1, pipeline = 1, chunks = 1, context = 1;
  int expert = 1;         // expert-parallel group, inside data x context x tensor
  int expert_tensor = 1;  // tensor parallelism inside an expert
  bool sequence_parallel = false;
  int zero = 1;         // 0 replicated, 1 optimizer, 2 gradients, 3 weights sharded over the data group
  int shard_group = 0;  // zero 3: ranks that share one copy of the weights; 0: the whole data group
  int micro_batch = 1;  // sequences
  Recompute recompute;
  ScheduleKind schedule = ScheduleKind::one_f_one_b;
  bool balanced_stages = true;  // stages cut by cost where layers do not divide evenly
  int node_limit = 0;           // a token's experts lie on at most this many nodes; 0: no limit
  bool offload = false;         // optimizer state in host memory

  int ranks() const { return data * tensor * pipeline * context; }
};

// What the program that runs the layout can do. Sinew plans with `modern`; a published run's text says what
// its program could.
struct Software {
  double date = 2025.5;  // decimal year: kernels for a chip get better with its age
  enum class Kind { megatron, torch, jax } kind = Kind::megatron;
  bool fused_attention = true;   // flash attention: the score matrix is never written
  bool deepspeed = false;        // its pipeline engine of 2021-22
  bool eager = false;            // element-wise operations one kernel each
  bool overlap_tensor = false;   // tensor-parallel communication behind the products
  bool overlap_data = true;      // gradient and weight traffic behind backward and forward
  bool overlap_pipeline = true;  // sends between stages behind computation
  bool overlap_experts = false;  // all-to-all behind another micro-batch's computation
  bool split_sends = true;       // a stage's output is sent once by the tensor group, not by each rank
  bool dedupe_dispatch = false;  // a token goes to a node once, however many of its experts are there
  bool cuda_graphs = false;
  bool single_rail = false;     // sharded weights travel over one network card of a node (DeepSpeed 2021)
  bool grouped_experts = true;  // one kernel for all local experts
  double dispatch_bytes = 2;    // of one element sent to an expert
  double goodput = 1;           // share of the time spent in steps, where a figure is of a whole run
  double gradient_bytes = 2;    // of one element in the gradient reduction
  bool fp32_gradients_only = false;  // summed in place in fp32, no bf16 ones beside them (the trainer's own)
  bool fused_experts = false;  // no gathered rows; a feed-forward keeps its first products only; logits in
                               // chunks (the trainer's own)
  double imbalance = 1;        // tokens of the fullest expert rank over the mean
};
Software modern();

// What is kept of each parameter beside its gradient and weight: an fp32 master, and two moments or one.
enum class OptimizerKind { adamw, muon };
OptimizerKind parse_optimizer(std::string_view name);  // throws UserError with the nearest name

struct Job {
  std::int64_t sequence = 4096;
  std::int64_t global_batch = 1024;  // sequences in a step
  Precision precision = Precision::bf16;
  double tokens = 0;  // of the whole run; 0: not asked
  OptimizerKind optimizer = OptimizerKind::adamw;
};

// One level of the machine's network; levels go from the inside (package) to the outside (between sites).
struct Setup {
  Network network;
  Accelerator chip;
  int count = 8;  // accelerators
  Layout layout;
  Job job;
  Software software = modern();
  double latency_scaleup = 3.33e-6, latency_network = 3.7e-6;  // s, one message
  int pod = 0;               // accelerators in a pod (slice, island); 0: all
  double pod_bandwidth = 0;  // bytes/s of one accelerator between pods
  double extra_step = 0;     // s added to a step (data, logging)

  std::int64_t micro_batches() const {
    const std::int64_t each = static_cast<std::int64_t>(layout.micro_batch) * layout.data;
    return each > 0 ? std::max<std::int64_t>(1, (job.global_batch + each / 2) / each) : 1;
  }
  // Work of a step over that of its micro-batches; 1 where the batch divides.
  double batch_ratio() const {
    return static_cast<double>(job.global_batch) /
           (static_cast<double>(micro_batches()) * layout.micro_batch * layout.data);
  }
};

// "" or the rule that the layout breaks, in one line.
std::string layout_problem(const Setup& setup);

}  // namespace sinew::plan
