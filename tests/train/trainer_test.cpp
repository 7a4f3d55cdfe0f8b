#include "train/trainer.hpp"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "base/error.hpp"
#include "base/log.hpp"
#include "storage/checkpoint.hpp"
#include "storage/export_checkpoint.hpp"
#include "support/tiny_run.hpp"
#include "text/build_data_set.hpp"
#include "train/batch.hpp"
#include "train/fault.hpp"
#include "train/prefetch.hpp"

namespace sinew {
namespace {

using test::TempDir;
using testing::HasSubstr;

class TrainerTest : public testing::Test {
 protected:
  // One data set for all tests.
  static void SetUpTestSuite() {
    log::set_level(log::Level::error);
    world_ = new TempDir;
    test::write_tiny_tokenizer(*world_ / "tokenizer.json");
    test::spit(*world_ / "text.txt", test::tiny_text());
    DataSetOptions options;
    options.inputs = {*world_ / "text.txt"};
    options.tokenizer = *world_ / "tokenizer.json";
    options.out = *world_ / "data";
    options.val_fraction = 0.1;
    build_data_set(options);
    test::spit(*world_ / "v2.json", test::tiny_v2().dump());
    test::spit(*world_ / "v3.json", test::tiny_v3().dump());
  }
  static void TearDownTestSuite() { delete world_; }

  static RunConfig config(const std::vector<const char*>& sets = {}) {
    RunConfig c;
    c.data.path = {(*world_ / "data").string()};
    c.model.config = (*world_ / "v3.json").string();
    for (const char* set :
         {"data.sequence=32", "train.batch=4", "train.steps=12", "train.device=cpu", "optimizer.lr=0.01",
          "log.every=1", "eval.every=5", "eval.batches=2", "eval.sample_prompt=the", "eval.sample_tokens=8",
          "checkpoint.every=4", "checkpoint.keep_last=10"})
      apply_set(c, set);
    for (const char* set : sets) apply_set(c, set);
    return c;
  }

  static TrainingResult run(const RunConfig& c, const fs::path& out,
                            RunDirectory::Mode mode = RunDirectory::Mode::fresh) {
    TrainingSetup setup = prepare_training(c);
    const RunDirectory directory(out, mode);
    testing::internal::CaptureStderr();
    const auto result = [&] {
      try {
        return train(setup, directory, mode == RunDirectory::Mode::resume);
      } catch (...) {
        said_ = testing::internal::GetCapturedStderr();
        throw;
      }
    }();
    said_ = testing::internal::GetCapturedStderr();
    return result;
  }

  static inline TempDir* world_ = nullptr;
  static inline std::string said_;
};

TEST_F(TrainerTest, TheLossFallsAndTheRunLeavesAModel) {
  const TempDir dir;
  const auto result = run(config({"train.steps=60", "eval.every=20"}), dir / "run");
  EXPECT_EQ(result.step, 60);
  EXPECT_EQ(result.signal, 0);
  const auto lines = test::metrics_lines(dir / "run/metrics.jsonl");
  ASSERT_EQ(lines.size(), 60u);
  EXPECT_NEAR(lines[0]["cross_entropy"].get<double>(), std::log(260), 0.3);
  EXPECT_LT(lines[59]["cross_entropy"].get<double>(), 2.5);
  EXPECT_EQ(lines[59]["tokens"], 60 * 4 * 32);
  for (const char* key :
       {"loss", "lr", "grad_norm", "tokens_per_second", "mfu", "memory_bytes", "data_seconds", "balance",
        "mtp", "moe_max_violation", "moe_entropy", "moe_dead_experts", "moe_dropped_share"})
    EXPECT_TRUE(lines[7].contains(key)) << key;
  EXPECT_FALSE(lines[7].contains("val_loss"));
  EXPECT_TRUE(lines[19].contains("val_loss") && lines[19].contains("val_bits_per_byte"));
  ASSERT_TRUE(result.evaluation);
  // One token a byte but for the end of each document.
  EXPECT_NEAR(result.evaluation->bits_per_byte, result.evaluation->loss / std::log(2), 0.02);
  EXPECT_THAT(said_, HasSubstr("dead"));
  EXPECT_THAT(result.sample, testing::StartsWith("the"));

  const auto model = load_model(result.model, at::kFloat, at::kCPU);
  TrainingSetup setup = prepare_training(config());
  const auto again = evaluate(*model, *setup.validation, 8, 4, false, at::kCPU);
  EXPECT_NEAR(again->loss, result.evaluation->loss, 1e-6);
  EXPECT_TRUE(fs::exists(result.model / "tokenizer.json"));
}

TEST_F(TrainerTest, MicroBatchesAndRecomputationDoNotChangeTheLosses) {
  const TempDir dir;
  const auto losses = [&](std::initializer_list<const char*> sets) {
    auto c = config({"train.steps=4", "train.batch=6", "eval.every=0", "data.mask_documents=true"});
    for (const char* set : sets) apply_set(c, set);
    run(c, dir / "run", RunDirectory::Mode::overwrite);
    std::vector<double> list;
    for (const auto& line : test::metrics_lines(dir / "run/metrics.jsonl")) list.push_back(line["loss"]);
    return list;
  };
  const auto whole = losses({});
  for (const char* set :
       {"train.micro_batch=2", "train.micro_batch=4", "train.recompute=full", "train.recompute=selective"}) {
    const auto other = losses({set});
    for (std::size_t i = 0; i < whole.size(); ++i)
      EXPECT_NEAR(other[i], whole[i], 2e-5 * whole[i]) << set << " step " << i + 1;
  }
}

// A run that died after step 8's checkpoint and was resumed writes the metrics of one that did not.
TEST_F(TrainerTest, ResumesBitForBit) {
  const std::vector<std::vector<const char*>> kinds{
      {"train.dtype=fp32", "optimizer.kind=adamw", "train.batch_start=2", "train.batch_ramp=10"},
      {"train.dtype=bf16", "optimizer.kind=muon", "data.mask_documents=true", "train.micro_batch=2"}};
  for (const auto& kind : kinds) {
    const TempDir dir;
    const RunConfig c = config(kind);
    run(c, dir / "run");
    const auto expected = test::reproducible_lines(dir / "run/metrics.jsonl");
    const std::string weights = test::slurp(dir / "run/model/model.safetensors");
    fs::remove_all(dir / "run/checkpoints/step-12");
    fs::create_directory(dir / "run/checkpoints/step-12.unfinished");
    fs::remove_all(dir / "run/model");
    run(c, dir / "run", RunDirectory::Mode::resume);
    EXPECT_EQ(test::reproducible_lines(dir / "run/metrics.jsonl"), expected);
    EXPECT_EQ(test::slurp(dir / "run/model/model.safetensors"), weights);
    EXPECT_FALSE(fs::exists(dir / "run/checkpoints/step-12.unfinished"));
  }
}

TEST_F(TrainerTest, ADamagedCheckpointIsNamedAndTheOneBeforeIsUsed) {
  const TempDir dir;
  run(config(), dir / "run");
  const auto expected = test::reproducible_lines(dir / "run/metrics.jsonl");
  fs::resize_file(dir / "run/checkpoints/step-12/weights-r00000-00000.safetensors", 1000);
  fs::remove(dir / "run/checkpoints/step-8/manifest.json");
  log::set_level(log::Level::warn);
  run(config(), dir / "run", RunDirectory::Mode::resume);
  log::set_level(log::Level::error);
  EXPECT_THAT(said_,
              testing::AllOf(HasSubstr("step-12/weights-r00000-00000.safetensors: 1000 bytes instead of"),
                             HasSubstr("step-8: no manifest.json"), testing::Not(HasSubstr("step-4:"))));
  EXPECT_EQ(test::reproducible_lines(dir / "run/metrics.jsonl"), expected);
  EXPECT_EQ(CheckpointReader(dir / "run/checkpoints/step-12").state().step, 12);  // written anew
}

TEST_F(TrainerTest, KeepsCheckpointsByThePolicy) {
  const TempDir dir;
  run(config({"checkpoint.every=2", "checkpoint.keep_last=2", "checkpoint.keep_every=6", "eval.every=0"}),
      dir / "run");
  EXPECT_EQ(list_checkpoints(dir / "run/checkpoints"), (std::vector<std::int64_t>{6, 10, 12}));
}

TEST_F(TrainerTest, BadStepsAreSkipped) {
  const TempDir dir;
  set_faults("nan@3,spike@11");
  run(config(), dir / "run");
  const auto lines = test::metrics_lines(dir / "run/metrics.jsonl");
  ASSERT_EQ(lines.size(), 12u);
  EXPECT_TRUE(lines[2]["cross_entropy"].is_null());
  EXPECT_EQ(lines[2]["skipped"], "the loss is nan");
  EXPECT_THAT(lines[10]["skipped"].get<std::string>(), HasSubstr("over 3 times the recent median"));
  EXPECT_FALSE(lines[3].contains("skipped"));
  EXPECT_THAT(said_, HasSubstr("SKIPPED: the loss is nan"));
  EXPECT_EQ(CheckpointReader(dir / "run/checkpoints/step-12").state().updates, 10);
}

TEST_F(TrainerTest, RepeatedSkipsGoBackToTheLastGoodCheckpoint) {
  const TempDir dir;
  set_faults("nan@6,nan@7,nan@8");
  log::set_level(log::Level::warn);
  run(config(), dir / "run");
  log::set_level(log::Level::error);
  EXPECT_THAT(said_, HasSubstr("step 8: 3 steps skipped in a row: back to "));
  const auto lines = test::metrics_lines(dir / "run/metrics.jsonl");
  ASSERT_EQ(lines.size(), 13u);  // 4 steps, the rollback, 8 steps
  EXPECT_EQ(lines[4]["event"], "rollback");
  EXPECT_EQ(lines[4]["from_step"], 8);
  for (std::size_t i = 0; i < lines.size(); ++i) {
    EXPECT_EQ(lines[i]["step"], i < 4 ? i + 1 : i);
    EXPECT_FALSE(lines[i].contains("skipped"));
  }
  const CheckpointReader last(dir / "run/checkpoints/step-12");
  EXPECT_EQ(last.state().rollbacks, 1);
  EXPECT_EQ(last.state().samples, 16u * 4u);  // 4 steps of text were passed over
}

TEST_F(TrainerTest, GivesUpWhenNothingHelps) {
  const TempDir dir;
  set_faults("nan@1,nan@2,nan@3");
  try {
    run(config(), dir / "run");
    FAIL();
  } catch (const UserError&) {
    FAIL() << "not the user's mistake";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("no checkpoint to go back to"));
  }
  set_faults("");
}

TEST_F(TrainerTest, AResumedRunMustFitItsCheckpoint) {
  const TempDir dir;
  run(config({"train.steps=4"}), dir / "run");
  const auto error_of = [&](std::initializer_list<const char*> sets) -> std::string {
    try {
      auto c = config({"train.steps=8"});
      for (const char* set : sets) apply_set(c, set);
      run(c, dir / "run", RunDirectory::Mode::resume);
    } catch (const UserError& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_THAT(error_of({"optimizer.kind=muon"}), HasSubstr("was written by optimizer.kind adamw, not muon"));
  const std::string other = "model.config=" + (*world_ / "v2.json").string();
  EXPECT_THAT(error_of({other.c_str()}), HasSubstr("was written for another model"));
  EXPECT_EQ(error_of({}), "");  // more steps: the run goes on
  EXPECT_EQ(test::metrics_lines(dir / "run/metrics.jsonl").size(), 8u);
}

TEST_F(TrainerTest, StartsFromAModel) {
  const TempDir dir;
  const auto first = run(config({"train.steps=20"}), dir / "one");
  auto c = config({"train.steps=1", "model.config="});
  c.model.init = first.model.string();
  run(c, dir / "two");
  EXPECT_LT(test::metrics_lines(dir / "two/metrics.jsonl")[0]["cross_entropy"].get<double>(), 4.5);
}

TEST_F(TrainerTest, ExportsInShardsAndDtypes) {
  const TempDir dir;
  const auto result = run(config({"train.steps=2"}), dir / "run");
  const CheckpointReader reader(result.checkpoint);
  export_checkpoint(reader, dir / "bf16", DType::BF16, 40000);
  EXPECT_TRUE(fs::exists(dir / "bf16/model.safetensors.index.json"));
  const ModelWeights whole(result.model), small(dir / "bf16");
  EXPECT_GT(small.files().size(), 2u);
  for (const auto& info : whole.tensors()) {
    const TensorInfo* other = small.find(info.name);
    ASSERT_NE(other, nullptr) << info.name;
    EXPECT_EQ(other->shape, info.shape);
    const bool bias = info.name.ends_with("e_score_correction_bias");
    EXPECT_EQ(other->dtype, bias ? DType::F32 : DType::BF16) << info.name;
    const auto count = static_cast<std::size_t>(info.elements());
    std::vector<float> a(count), b(count);
    to_float(info.dtype, whole.data(info.name).data(), a.data(), count);
    to_float(other->dtype, small.data(info.name).data(), b.data(), count);
    for (std::size_t i = 0; i < count; ++i) ASSERT_NEAR(a[i], b[i], std::abs(a[i]) / 256) << info.name;
  }
  EXPECT_EQ(nlohmann::json::parse(test::slurp(dir / "bf16/config.json"))["torch_dtype"], "bfloat16");
  EXPECT_EQ(load_model_config(dir / "bf16").dtype, "bfloat16");  // `dtype` says the same
  export_checkpoint(reader, dir / "bf16", DType::F32);           // replaces
  EXPECT_EQ(test::slurp(dir / "bf16/model.safetensors"), test::slurp(result.model / "model.safetensors"));
  EXPECT_FALSE(fs::exists(dir / "bf16/model.safetensors.index.json"));
}

TEST_F(TrainerTest, RefusesWhatCannotWork) {
  const auto error_of = [](const RunConfig& c) -> std::string {
    try {
      prepare_training(c);
    } catch (const UserError& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_THAT(error_of(config({"data.sequence=129"})), HasSubstr("max_position_embeddings"));
  EXPECT_THAT(error_of(config({"data.path=/nowhere"})), HasSubstr("/nowhere"));
  EXPECT_THAT(error_of(config({"model.config=no-such-model"})), HasSubstr("no-such-model"));
  EXPECT_THAT(error_of(config({"train.device=tpu"})), HasSubstr("auto, cpu, cuda"));
  EXPECT_THAT(error_of(config({"balance.device_alpha=0.1", "balance.device_groups=3"})), HasSubstr("3"));
  const TempDir dir;
  auto small = test::tiny_v2();
  small["vocab_size"] = 200;
  test::spit(dir / "small.json", small.dump());
  auto c = config();
  c.model.config = (dir / "small.json").string();
  EXPECT_THAT(error_of(c), testing::AllOf(HasSubstr("200"), HasSubstr("257")));
}

TEST_F(TrainerTest, ARunIsNotOverwrittenUnasked) {
  const TempDir dir;
  run(config({"train.steps=1"}), dir / "run");
  test::spit(dir / "run/notes.txt", "mine");
  EXPECT_THROW(RunDirectory(dir / "run", RunDirectory::Mode::fresh), UserError);
  {
    const RunDirectory held(dir / "run", RunDirectory::Mode::resume);
    EXPECT_THROW(RunDirectory(dir / "run", RunDirectory::Mode::resume), UserError);  // two at once
  }
  const RunDirectory fresh(dir / "run", RunDirectory::Mode::overwrite);
  EXPECT_FALSE(holds_run(dir / "run"));
  EXPECT_TRUE(fs::exists(dir / "run/notes.txt"));
}

TEST_F(TrainerTest, PrefetchingGivesTheSameBatches) {
  TrainingSetup setup = prepare_training(config());
  const auto rows = [](std::int64_t step) { return step < 3 ? 2 : 5; };
  Prefetcher ahead(*setup.train, 7, 1, rows, 3), direct(*setup.train, 7, 1, rows, 0);
  for (int i = 0; i < 6; ++i) {
    const TokenBatch a = ahead.next(), b = direct.next();
    EXPECT_EQ(a.rows, i < 2 ? 2 : 5);
    EXPECT_EQ(a.tokens, b.tokens);
  }
}

// Replicas read parts of every micro-batch that together are the batch, in the order in which one process
// reads it.
TEST_F(TrainerTest, ReplicasReadTheirOwnRowsAndNoOthers) {
  TrainingSetup setup = prepare_training(config());
  const auto rows = [](std::int64_t step) { return step < 3 ? 4 : 8; };
  constexpr std::int64_t kReplicas = 2, kMicro = 4;
  Prefetcher whole(*setup.train, 7, 1, rows, 0);
  std::vector<std::unique_ptr<Prefetcher>> parts;
  for (std::int64_t place = 0; place < kReplicas; ++place)
    parts.push_back(std::make_unique<Prefetcher>(*setup.train, 7, 1, rows, 2, [=](std::int64_t n) {
      return rows_of_replica(n, kMicro, kReplicas, place);
    }));
  for (int i = 0; i < 4; ++i) {
    const TokenBatch want = whole.next();
    const std::vector<TokenBatch> own{parts[0]->next(), parts[1]->next()};
    std::vector<TokenId> joined;
    for (std::int64_t row = 0; row < want.rows; ++row) {
      const auto& part = own[static_cast<std::size_t>(row % kMicro / (kMicro / kReplicas))];
      ASSERT_EQ(part.rows, want.rows / kReplicas);
      const auto at = row / kMicro * (kMicro / kReplicas) + row % (kMicro / kReplicas);
      const auto first = part.tokens.begin() + at * (want.sequence + 1);
      joined.insert(joined.end(), first, first + want.sequence + 1);
    }
    EXPECT_EQ(joined, want.tokens);
  }
}

TEST_F(TrainerTest, MaskedTargetsAreThoseOfTheNextDocument) {
  TokenBatch batch{
      .rows = 2, .sequence = 3, .tokens = {1, 2, 3, 4, 5, 6, 7, 8}, .documents = {0, 0, 1, 1, 0, 0, 0, 0}};
  const auto masked = batch_tensors(batch, 0, 2, true, at::kCPU),
             plain = batch_tensors(batch, 1, 1, false, at::kCPU);
  EXPECT_TRUE(at::equal(masked.targets, at::tensor({2, -100, 4, 6, 7, 8}, at::kLong).view({2, 3})));
  EXPECT_TRUE(at::equal(masked.tokens, at::tensor({1, 2, 3, 5, 6, 7}, at::kLong).view({2, 3})));
  EXPECT_EQ(masked.counted, 5);
  EXPECT_TRUE(at::equal(plain.targets, at::tensor({6, 7, 8}, at::kLong).view({1, 3})));
  EXPECT_FALSE(plain.documents.defined());
}

}  // namespace
}  // namespace sinew
