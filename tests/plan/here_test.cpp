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

TEST(Here, StepFollowsTheMeasuredRates) {
  const Network n = network_from(load_model_config("shakespeare-moe"), "shakespeare-moe");
  const Accelerator slow = this_machine(100e9, 200e9, 20e9), fast = this_machine(200e9, 400e9, 40e9);
  const StepPrediction one = predict_here(slow, n, job_of(8, Precision::fp32), 0);
  EXPECT_GT(one.mfu, 0.2);
  EXPECT_LT(one.mfu, 1);
  EXPECT_LT(predict_here(fast, n, job_of(8, Precision::fp32), 0).seconds, one.seconds);
  EXPECT_LT(predict_here(slow, n, job_of(8, Precision::bf16), 0).seconds, one.seconds);
  const StepPrediction two = predict_here(slow, n, job_of(16, Precision::fp32), 8);
  EXPECT_NEAR(two.time.work.total(), 2 * one.time.work.total(), 1e-6 * two.seconds);
}

TEST(Here, MemoryOfThisMachineIsReadAndNonsenseRefused) {
  EXPECT_GT(this_machine(1e9, 0, 1e9).memory_bytes, 1e8);
  EXPECT_GT(measure_memory_bandwidth(), 1e8);
  EXPECT_THROW(this_machine(0, 0, 1e9), UserError);
}

}  // namespace
}  // namespace sinew::plan
