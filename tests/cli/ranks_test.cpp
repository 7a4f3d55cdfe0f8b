// `sinew train` as several processes: the same losses, any layout at a resume, clear failures.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <csignal>
#include <sstream>
#include <thread>

#include "cli/run_and_signal.hpp"
#include "cli/tiny_world.hpp"

namespace {

using namespace sinew::test;
using testing::HasSubstr;
using Arguments = std::vector<std::string>;

class RanksCli : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    world_ = new TempDir;
    make_tiny_world(*world_);
    if (HasFatalFailure()) return;
    spit(*world_ / "run.toml", "[model]\nconfig = \"" + path("model.json") + "\"\n[data]\npath = \"" +
                                   path("data") +
                                   "\"\nsequence = 16\n[train]\nsteps = 9\nbatch = 8\ndevice = \"cpu\"\n"
                                   "[optimizer]\nlr = 0.003\n[log]\nevery = 1\ntensorboard = false\n"
                                   "[eval]\nbatches = 1\nsample_tokens = 2\n[checkpoint]\nkeep_last = 100\n"
                                   "[layout]\ntimeout = 60\n");
  }
  static void TearDownTestSuite() { delete world_; }
  static std::string path(const std::string& name) { return (*world_ / name).string(); }

  static sinew::test::Run train(const std::string& out, int ranks, const Arguments& sets,
                                const Arguments& more = {}, const Arguments& environment = {}) {
    Arguments a{"train", "--config", path("run.toml"), "--out", path(out), "--no-plan"};
    if (ranks > 1) a.insert(a.end(), {"--ranks", std::to_string(ranks)});
    for (const auto& set : sets) a.insert(a.end(), {"--set", set});
    a.insert(a.end(), more.begin(), more.end());
    return run_sinew(a, environment);
  }
  static std::vector<double> losses(const std::string& out) {
    std::vector<double> list;
    for (const auto& line : metrics_lines(*world_ / out / "metrics.jsonl"))
      if (line.contains("loss")) list.push_back(line["loss"].get<double>());
    return list;
  }
  static void expect_same(const std::string& out) {
    const auto got = losses(out), want = losses("alone");
    ASSERT_EQ(got.size(), want.size());
    for (std::size_t i = 0; i < got.size(); ++i) EXPECT_LE(std::abs(got[i] - want[i]), 1e-5 * want[i]) << i;
  }

  static inline TempDir* world_ = nullptr;
};

// 8 ranks sharded, then 2 x tensor, then one: as if nothing had happened, and every expert is there.
TEST_F(RanksCli, ChangesItsLayoutAtACheckpoint) {
  const auto first =
      train("moved", 8, {"train.steps=3", "layout.shard=8", "layout.expert=4", "schedule.kind=constant"});
  ASSERT_EQ(first.exit_code, 0) << first.error;
  ASSERT_TRUE(fs::exists(*world_ / "moved" / "logs" / "rank-00007.log"));
  const auto second = train(
      "moved", 2, {"train.steps=6", "layout.shard=1", "layout.expert=1", "layout.tensor=2"}, {"--resume"});
  ASSERT_EQ(second.exit_code, 0) << second.error;
  EXPECT_THAT(second.error, HasSubstr("(layout shard=8 zero=3 expert=4 -> tensor=2)"));
  const auto third = train("moved", 1, {"train.steps=9", "layout.tensor=1"}, {"--resume"});
  ASSERT_EQ(third.exit_code, 0) << third.error;
  ASSERT_EQ(train("alone", 1, {"schedule.kind=constant"}).exit_code, 0);
  expect_same("moved");
  const auto exported =
      run_sinew({"inspect", (*world_ / "moved" / "checkpoints" / "step-3").string(), "--json"});
  EXPECT_EQ(exported.exit_code, 0) << exported.error;
}

// What a step should take is in the log and beside what it took.
TEST_F(RanksCli, PlansItsSteps) {
  const auto run = run_sinew({"train", "--config", path("run.toml"), "--out", path("planned"), "--ranks", "2",
                              "--set", "train.steps=2", "--set", "layout.expert=2"},
                             {"XDG_CACHE_HOME=" + path("cache")});
  ASSERT_EQ(run.exit_code, 0) << run.error;
  EXPECT_THAT(run.output, HasSubstr("s planned"));
  for (const auto& line : metrics_lines(*world_ / "planned" / "metrics.jsonl")) {
    if (line.contains("loss")) {
      EXPECT_GT(line["planned_step_seconds"].get<double>(), 0);
    }
  }
  EXPECT_TRUE(fs::exists(*world_ / "cache" / "sinew" / "parts"));
}

// What a run says, but for times: losses, validation and samples of text do not depend on where they are
// made.
TEST_F(RanksCli, SaysTheSameOnEveryLayout) {
  const Arguments sets{"train.steps=2",         "train.micro_batch=2",  "eval.every=1",
                       "eval.sample_every=1",   "eval.sample_tokens=4", "eval.batches=3",
                       "eval.sample_prompt=the"};
  const auto with = [&](Arguments more) {
    more.insert(more.end(), sets.begin(), sets.end());
    return more;
  };
  const auto sample = [](const sinew::test::Run& run) {
    std::string lines;
    std::istringstream text(run.error);
    for (std::string line; std::getline(text, line);)
      if (line.find("sample: ") != std::string::npos) lines += line.substr(line.find("step ")) + "\n";
    return lines;
  };
  const auto alone = train("whole", 1, with({}));
  ASSERT_EQ(alone.exit_code, 0) << alone.error;
  const auto want = metrics_lines(*world_ / "whole" / "metrics.jsonl");
  const std::string written = sample(alone);
  ASSERT_EQ(std::count(written.begin(), written.end(), '\n'), 2) << alone.error;
  struct Case {
    int ranks;
    Arguments layout;
  };
  const std::vector<Case> cases{
      {4, {"layout.pipeline=2", "layout.shard=2", "layout.zero=3", "layout.schedule=zero-bubble"}},
      {4, {"layout.context=2", "layout.tensor=2", "layout.expert=2"}}};
  for (const auto& [ranks, layout] : cases) {
    SCOPED_TRACE(layout[0] + " " + layout[1]);
    const auto run = train("cut", ranks, with(layout), {"--overwrite"});
    ASSERT_EQ(run.exit_code, 0) << run.error;
    EXPECT_EQ(sample(run), written);
    const auto got = metrics_lines(*world_ / "cut" / "metrics.jsonl");
    ASSERT_EQ(got.size(), want.size());
    int validations = 0;
    for (std::size_t i = 0; i < got.size(); ++i) {
      for (const auto& [key, value] : want[i].items()) {
        ASSERT_TRUE(got[i].contains(key)) << key;
        const bool real = key == "loss" || key == "cross_entropy" || key == "mtp" || key.starts_with("val_");
        const bool exact =
            key == "tokens" || key == "batch" || key == "lr" || key == "step" || key == "moe_dead_experts";
        if (real) {
          EXPECT_NEAR(got[i][key].get<double>(), value.get<double>(), 1e-5 * value.get<double>()) << key;
        }
        if (exact) {
          EXPECT_EQ(got[i][key], value) << key;
        }
        validations += key == "val_loss" ? 1 : 0;
      }
    }
    EXPECT_EQ(validations, 2);
  }
}

TEST_F(RanksCli, IsTheSameBitForBitFromRunToRun) {
  const Arguments layout{"layout.shard=2", "layout.expert=2", "layout.zero=3", "train.steps=4"};
  ASSERT_EQ(train("once", 2, layout, {"--deterministic"}).exit_code, 0);
  ASSERT_EQ(train("twice", 2, layout, {"--deterministic"}).exit_code, 0);
  EXPECT_EQ(losses("once"), losses("twice"));
  EXPECT_EQ(losses("once").size(), 4u);
  // A resumed run keeps to it.
  EXPECT_THAT(slurp(*world_ / "once" / "config.toml"), HasSubstr("deterministic = true"));
}

// Ctrl-C: all processes end after the same step, with a checkpoint to go on from.
TEST_F(RanksCli, StopsTogetherAtASignalAndGoesOn) {
  Arguments a{"train", "--config", path("run.toml"), "--out", path("stopped"), "--no-plan", "--ranks", "4"};
  for (const char* set :
       {"layout.shard=2", "layout.tensor=2", "train.steps=100000", "schedule.kind=constant"})
    a.insert(a.end(), {"--set", set});
  const fs::path metrics = *world_ / "stopped" / "metrics.jsonl", told = *world_ / "stopped.txt";
  const int code = run_and_signal(
      a, SIGINT, [&] { return fs::exists(metrics) && fs::file_size(metrics) > 0; }, told);
  EXPECT_EQ(code, 128 + SIGINT) << slurp(told);
  EXPECT_THAT(slurp(told), HasSubstr("stopped by SIGINT after step"));
  const auto steps = losses("stopped").size();
  ASSERT_GT(steps, 0u);
  ASSERT_TRUE(fs::exists(*world_ / "stopped" / "checkpoints" / ("step-" + std::to_string(steps))))
      << slurp(told);
  const auto on =
      train("stopped", 2, {"train.steps=" + std::to_string(steps + 2), "layout.tensor=1"}, {"--resume"});
  ASSERT_EQ(on.exit_code, 0) << on.error;
  EXPECT_EQ(losses("stopped").size(), steps + 2);
}

// Ranks that were told different things, on machines of their own say.
TEST_F(RanksCli, RanksWithOtherSettingsAreRefused) {
  std::vector<std::thread> threads;
  std::vector<sinew::test::Run> runs(2);
  for (int rank = 0; rank < 2; ++rank)
    threads.emplace_back([&, rank] {
      runs[static_cast<std::size_t>(rank)] =
          train("unlike", 1, {rank == 0 ? "optimizer.lr=0.003" : "optimizer.lr=0.004"}, {},
                {"RANK=" + std::to_string(rank), "WORLD_SIZE=2", "MASTER_PORT=29533"});
    });
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(runs[0].exit_code, 2);
  EXPECT_THAT(runs[0].error, HasSubstr("rank 1 was started with other settings than rank 0: optimizer.lr"));
  EXPECT_NE(runs[1].exit_code, 0);
}

TEST_F(RanksCli, SaysWhatIsWrongOnce) {
  const auto odd = train("odd", 3, {"layout.tensor=2"});
  EXPECT_EQ(odd.exit_code, 2);
  EXPECT_THAT(odd.error, HasSubstr("does not divide the 3 processes"));
  EXPECT_EQ(odd.error.find("sinew: layout"), odd.error.rfind("sinew: layout")) << odd.error;
  const auto alone = train("wrong", 1, {}, {}, {"RANK=4", "WORLD_SIZE=4"});
  EXPECT_EQ(alone.exit_code, 2);
  const auto first = train("wrong", 1, {}, {}, {"RANK=0", "WORLD_SIZE=0"});
  EXPECT_EQ(first.exit_code, 2);
  EXPECT_THAT(first.error, HasSubstr("WORLD_SIZE is 0"));
}

// A rank that is killed: the others name the operation and the rank they waited for, and the job ends.
TEST_F(RanksCli, ADeadRankIsNamed) {
  const auto run = train("dead", 2, {"layout.expert=2", "checkpoint.every=2", "train.steps=40"}, {},
                         {"SINEW_FAULT=kill-rank1@3"});
  EXPECT_NE(run.exit_code, 0);
  EXPECT_THAT(run.error, HasSubstr("rank 1 was ended by signal 9"));
  EXPECT_THAT(run.error, HasSubstr(" of group "));
  const auto failed = train("failed", 2, {"layout.expert=2"}, {}, {"SINEW_FAULT=fail-rank1@2"});
  EXPECT_EQ(failed.exit_code, 1);
  EXPECT_THAT(failed.error, HasSubstr("rank 1: step 2: failed on purpose"));
}

}  // namespace
