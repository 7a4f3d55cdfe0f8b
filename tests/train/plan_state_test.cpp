// The planner's counts beside what the trainer's own objects hold.
#include <gtest/gtest.h>

#include "config/stages.hpp"
#include "model/partition.hpp"
#include "plan/trainer_state.hpp"
#include "train/optimizer.hpp"
#include "train/step_bench.hpp"

namespace sinew {
namespace {

ModelConfig with_mtp() {
  ModelConfig c = bench_preset("tiny").model;
  c.num_hidden_layers = 5;
  c.model_type = "deepseek_v3";
  c.moe.scoring_func = ScoringFunc::sigmoid;
  c.moe.topk_method = TopkMethod::noaux_tc;
  c.num_nextn_predict_layers = 1;
  return c;
}

std::vector<ModelConfig> models() {
  ModelConfig dense = bench_preset("gpt2").model;
  dense.num_hidden_layers = 3;
  dense.vocab_size = 301;
  dense.hidden_size = 96;
  dense.head_dim = 8;
  dense.intermediate_size = 130;
  ModelConfig untied = dense;
  untied.tie_word_embeddings = false;
  untied.attention_bias = true;
  return {bench_preset("tiny").model, with_mtp(), dense, untied};
}

TEST(PlanState, EqualsTheTrainersBytes) {
  for (const ModelConfig& config : models())
    for (const bool bf16 : {false, true}) {
      const LanguageModel model(config, bf16 ? at::kBFloat16 : at::kFloat, at::kCPU, 1);
      const Optimizer optimizer(model.parameters(), RunConfig::Optimizer{});
      std::int64_t parameters = 0, weights = 0, gradients = 0, state = 0, buffers = 0;
      for (const Parameter& p : model.parameters()) (p.buffer ? buffers : parameters) += p.tensor.numel();
      for (const TrainedTensor& t : optimizer.tensors()) {
        weights += static_cast<std::int64_t>(t.weight.nbytes());
        gradients += static_cast<std::int64_t>(t.gradient.nbytes());
        state += static_cast<std::int64_t>(t.first.nbytes() + t.second.nbytes());
        if (!t.master.is_same(t.weight)) state += static_cast<std::int64_t>(t.master.nbytes());
      }
      const Layout alone = check_layout({}, {.processes = 1, .batch = 1, .sequence = 64}, config);
      const plan::TrainerState s = plan::trainer_state(config, alone, 64, bf16);
      EXPECT_EQ(s.parameters, parameters) << config.model_type;
      EXPECT_EQ(s.buffers, buffers);
      EXPECT_EQ(s.weights, weights);
      EXPECT_EQ(s.gradients, gradients);
      EXPECT_EQ(s.optimizer, state);
    }
}

// A member of a group that never speaks: the partition asks for its rank and size only.
class Silent : public Group {
 public:
  Silent(int rank, int size) : rank_(rank), size_(size) {}
  int rank() const override { return rank_; }
  int size() const override { return size_; }
  WorkPtr all_reduce_async(const at::Tensor&, Reduction) override { return {}; }
  WorkPtr all_gather_async(const at::Tensor&, const at::Tensor&) override { return {}; }
  WorkPtr reduce_scatter_async(const at::Tensor&, const at::Tensor&) override { return {}; }
  WorkPtr all_to_all_async(const at::Tensor&, const at::Tensor&, const std::vector<std::int64_t>&,
                           const std::vector<std::int64_t>&) override {
    return {};
  }
  WorkPtr send_async(const at::Tensor&, int, int) override { return {}; }
  WorkPtr receive_async(const at::Tensor&, int, int) override { return {}; }
  WorkPtr broadcast_async(const at::Tensor&, int) override { return {}; }
  void barrier() override {}

 private:
  int rank_, size_;
};

// Every place of every layout holds what the trainer's partition gives it.
TEST(PlanState, EqualsThePartition) {
  for (const ModelConfig& config : models())
    for (const int tensor : {1, 2})
      for (const int expert : {1, 4})
        for (const int pipeline : {1, 2, 3}) {
          if (expert > 1 && config.moe.n_routed_experts == 0) continue;
          if (pipeline > config.num_hidden_layers) continue;
          Layout layout;
          layout.tensor = tensor;
          layout.expert = expert;
          layout.pipeline = pipeline;
          const std::int64_t processes = 4 * tensor * pipeline;
          layout = check_layout(layout, {.processes = processes, .batch = 8, .sequence = 64}, config);
          const auto stages = balanced_stages(config, pipeline, 64);
          for (int p = 0; p < pipeline; ++p)
            for (int t = 0; t < tensor; ++t)
              for (int e = 0; e < expert; ++e) {
                Partition partition;
                partition.chunks = {stages[static_cast<std::size_t>(p)]};
                partition.tensor = std::make_shared<Silent>(t, tensor);
                partition.expert = std::make_shared<Silent>(e, expert);
                std::int64_t trained = 0, buffers = 0;
                for (const PartSpec& part : part_specs(config, partition)) {
                  std::int64_t elements = 1;
                  for (const std::int64_t d : part.shape) elements *= d;
                  (part.whole.buffer ? buffers : trained) += elements;
                }
                const plan::TrainerState s =
                    plan::trainer_state(config, layout, 64, true, {.pipeline = p, .tensor = t, .expert = e});
                EXPECT_EQ(s.parameters, trained)
                    << layout_name(layout) << " at " << p << "," << t << "," << e;
                EXPECT_EQ(s.buffers, buffers);
              }
        }
}

}  // namespace
}  // namespace sinew
