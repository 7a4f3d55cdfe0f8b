// `sinew train` as several processes: the same losses, any layout at a resume, clear failures.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

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

TEST_F(RanksCli, IsTheSameBitForBitFromRunToRun) {
  const Arguments layout{"layout.shard=2", "layout.expert=2", "layout.zero=3", "train.steps=4"};
  ASSERT_EQ(train("once", 2, layout, {"--deterministic"}).exit_code, 0);
  ASSERT_EQ(train("twice", 2, layout, {"--deterministic"}).exit_code, 0);
  EXPECT_EQ(losses("once"), losses("twice"));
  EXPECT_EQ(losses("once").size(), 4u);
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
  EXPECT_THAT(run.error, HasSubstr("rank 1"));
  const auto failed = train("failed", 2, {"layout.expert=2"}, {}, {"SINEW_FAULT=fail-rank1@2"});
  EXPECT_EQ(failed.exit_code, 1);
  EXPECT_THAT(failed.error, HasSubstr("rank 1: step 2: failed on purpose"));
}

}  // namespace
