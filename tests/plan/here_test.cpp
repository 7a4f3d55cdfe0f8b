#include "plan/here.hpp"

#include <gtest/gtest.h>

#include "base/error.hpp"

namespace sinew::plan {
namespace {

Job job_of(std::int64_t batch, Precision precision) {
  Job job;
  job.sequence = 256;
  job.global_batch = batch;
  job.precision = precision;
  return job;
}

HereRun run_of(std::int64_t batch, int micro_batch, Precision precision) {
  HereRun run;
  run.network = network_from(load_model_config("shakespeare-moe"), "shakespeare-moe");
  run.job = job_of(batch, precision);
  run.layout.zero = 0;
  run.layout.micro_batch = micro_batch;
  return run;
}

TEST(Here, StepFollowsTheMeasuredRates) {
  const Accelerator slow = this_machine(100e9, 200e9, 20e9), fast = this_machine(200e9, 400e9, 40e9);
  const StepPrediction one = predict_here(slow, run_of(8, 8, Precision::fp32));
  EXPECT_GT(one.mfu, 0.2);
  EXPECT_LT(one.mfu, 1);
  EXPECT_LT(predict_here(fast, run_of(8, 8, Precision::fp32)).seconds, one.seconds);
  EXPECT_LT(predict_here(slow, run_of(8, 8, Precision::bf16)).seconds, one.seconds);
  const StepPrediction two = predict_here(slow, run_of(16, 8, Precision::fp32));
  EXPECT_NEAR(two.time.work.total(), 2 * one.time.work.total(), 1e-6 * two.seconds);
}

// A step is the sum of its measured operations, each as often as the network has it.
TEST(Here, StepIsTheSumOfItsParts) {
  const Accelerator machine = this_machine(100e9, 200e9, 20e9);
  StepParts parts;
  parts.embedding = {1e-3, 2e-3};
  parts.attention = {10e-3, 20e-3};
  parts.norms = {3e-3, 4e-3};
  parts.dense = {1000, 1000};  // not in this network
  parts.moe = {30e-3, 50e-3};
  parts.head = {7e-3, 8e-3};
  parts.update = 0.1;
  const double block = 117e-3, ends = 18e-3, layers = 4;
  HereRun run = run_of(16, 4, Precision::bf16);
  const double rest = here_constants()[Constant::step_seconds];
  EXPECT_NEAR(predict_here(machine, run, parts).seconds, 4 * (layers * block + ends) + 0.1 + rest, 2e-3);
  run.layout.recompute.full = true;
  EXPECT_NEAR(predict_here(machine, run, parts).seconds, 4 * (layers * (block + 43e-3) + ends) + 0.1 + rest,
              2e-3);
}

TEST(Here, MemoryOfThisMachineIsReadAndNonsenseRefused) {
  EXPECT_GT(this_machine(1e9, 0, 1e9).memory_bytes, 1e8);
  EXPECT_GT(measure_memory_bandwidth(), 1e8);
  EXPECT_THROW(this_machine(0, 0, 1e9), UserError);
}

}  // namespace
}  // namespace sinew::plan
