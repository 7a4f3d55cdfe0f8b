// `sinew train` and `sinew export` as a user runs them: stopping, killing, resuming, bad input.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <thread>

#include "cli/run_and_signal.hpp"
#include "cli/tiny_world.hpp"

namespace {

using namespace sinew::test;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
using Arguments = std::vector<std::string>;

class TrainCli : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    world_ = new TempDir;
    make_tiny_world(*world_);
    if (HasFatalFailure()) return;
    spit(
        *world_ / "run.toml",
        "[model]\nconfig = \"" + path("model.json") + "\"\n[data]\npath = \"" + path("data") +
            "\"\nsequence = 32\n[train]\nsteps = 24\nbatch = 2\ndevice = \"cpu\"\n[optimizer]\nlr = "
            "0.01\n[log]\nevery = 1\n"
            "[eval]\nevery = 10\nbatches = 2\nsample_tokens = 4\n[checkpoint]\nevery = 4\nkeep_last = 100\n");
  }
  static void TearDownTestSuite() { delete world_; }
  static std::string path(const std::string& name) { return (*world_ / name).string(); }

  static Arguments train(const fs::path& out, const Arguments& more = {}) {
    Arguments a{"train", "--config", path("run.toml"), "--out", out.string()};
    a.insert(a.end(), more.begin(), more.end());
    return a;
  }

  static inline TempDir* world_ = nullptr;
};

std::size_t lines_of(const std::string& text) {
  return static_cast<std::size_t>(std::count(text.begin(), text.end(), '\n'));
}

// The unbroken run, one stopped by SIGTERM and resumed, one killed while it writes a checkpoint and resumed.
TEST_F(TrainCli, StoppedKilledAndUnbrokenRunsAreTheSame) {
  const TempDir dir;
  const sinew::test::Run whole = run_sinew(train(dir / "whole"));
  ASSERT_EQ(whole.exit_code, 0) << whole.error;
  EXPECT_THAT(whole.output, AllOf(HasSubstr("bits per byte"), HasSubstr("sample "), HasSubstr("whole/model"),
                                  HasSubstr("sinew generate")));
  const auto expected = reproducible_lines(dir / "whole/metrics.jsonl");
  ASSERT_EQ(expected.size(), 24u);

  const auto at_step_6 = [&] {
    return fs::exists(dir / "stopped/metrics.jsonl") && lines_of(slurp(dir / "stopped/metrics.jsonl")) >= 6;
  };
  ASSERT_EQ(run_and_signal(train(dir / "stopped"), SIGTERM, at_step_6, dir / "said"), 128 + SIGTERM)
      << slurp(dir / "said");
  EXPECT_THAT(slurp(dir / "said"), HasSubstr("stopped by SIGTERM after step"));
  EXPECT_FALSE(fs::exists(dir / "stopped/model"));
  const sinew::test::Run resumed = run_sinew({"train", "--out", (dir / "stopped").string(), "--resume"});
  ASSERT_EQ(resumed.exit_code, 0) << resumed.error;
  EXPECT_EQ(reproducible_lines(dir / "stopped/metrics.jsonl"), expected);

  ASSERT_EQ(run_sinew(train(dir / "killed"), {"SINEW_FAULT=kill-save@12"}).exit_code, 128 + SIGKILL);
  EXPECT_TRUE(fs::exists(dir / "killed/checkpoints/step-12.unfinished"));
  EXPECT_FALSE(fs::exists(dir / "killed/checkpoints/step-12"));
  const sinew::test::Run after = run_sinew(train(dir / "killed", {"--resume"}));
  ASSERT_EQ(after.exit_code, 0) << after.error;
  EXPECT_THAT(after.error, HasSubstr("step-8"));
  EXPECT_EQ(reproducible_lines(dir / "killed/metrics.jsonl"), expected);

  for (const char* run : {"stopped", "killed"})
    EXPECT_EQ(slurp(dir / (std::string(run) + "/model/model.safetensors")),
              slurp(dir / "whole/model/model.safetensors"));
}

TEST_F(TrainCli, AFullDiskDuringASaveLeavesTheCheckpointBefore) {
  const TempDir dir;
  ASSERT_EQ(run_sinew(train(dir / "run", {"--set", "train.steps=4"})).exit_code, 0);
  const std::string before = slurp(dir / "run/checkpoints/step-4/weights-r00000-00000.safetensors");
  // A limit on the size of files is, to the program, a disk with that much room; it holds for root too.
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  const pid_t child = fork();
  if (child == 0) {
    const rlimit limit{30000, 30000};
    setrlimit(RLIMIT_FSIZE, &limit);
    dup2(ends[1], 2);
    close(ends[0]);
    close(ends[1]);
    execl(sinew_program().c_str(), "sinew", "train", "--out", (dir / "run").c_str(), "--resume", "--set",
          "train.steps=8", nullptr);
    _exit(127);
  }
  close(ends[1]);
  std::string said;
  char buffer[4096];
  for (ssize_t n = 0; (n = read(ends[0], buffer, sizeof buffer)) > 0;)
    said.append(buffer, static_cast<std::size_t>(n));
  close(ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_EQ(WEXITSTATUS(status), 2) << said;
  EXPECT_THAT(said, HasSubstr("sinew: "));
  EXPECT_THAT(said.substr(said.find("sinew: ")), AllOf(HasSubstr("step-8"), HasSubstr("File too large")));
  EXPECT_EQ(lines_of(said.substr(said.find("sinew: "))), 1u);
  EXPECT_EQ(slurp(dir / "run/checkpoints/step-4/weights-r00000-00000.safetensors"), before);
  EXPECT_FALSE(fs::exists(dir / "run/checkpoints/step-8"));
  const sinew::test::Run after = run_sinew({"train", "--out", (dir / "run").string(), "--resume"});
  EXPECT_EQ(after.exit_code, 0) << after.error;
}

TEST_F(TrainCli, BadInputIsOneLineAndExitCode2) {
  const TempDir dir;
  spit(dir / "typo.toml", "[optimizer]\nlearning_rate = 1\n");
  spit(dir / "short.json", [] {
    auto json = tiny_v3();
    json["max_position_embeddings"] = 16;
    return json.dump();
  }());
  spit(dir / "narrow.json", [] {
    auto json = tiny_v3();
    json["vocab_size"] = 100;
    return json.dump();
  }());
  spit(dir / "file", "");
  fs::copy(path("data"), dir / "cut", fs::copy_options::recursive);
  for (const auto& entry : fs::directory_iterator(dir / "cut"))
    if (entry.file_size() > 20000 && entry.path().extension() != ".json")
      fs::resize_file(entry.path(), entry.file_size() / 2);
  const std::string out = (dir / "run").string();
  const auto set = [&](const std::string& value) { return train(out, {"--set", value}); };
  const std::vector<std::pair<Arguments, std::string>> cases{
      {{"train", "--config", "/nowhere/run.toml", "--out", out}, "/nowhere/run.toml"},
      {{"train", "--out", out}, "nothing to train"},
      {{"train", "--config", path("run.toml")}, "--out RUN"},
      {train(out, {"--config", (dir / "typo.toml").string()}),
       "typo.toml:2:1: unknown setting optimizer.learning_rate"},
      {set("train.stepz=3"), "did you mean \"train.steps\"?"},
      {set("schedule.warmup=100"), "schedule.warmup (--set) is 100, more than train.steps"},
      {set("model.config=deepseek-v7"), "deepseek-v7"},
      {set("data.path=" + (dir / "absent").string()), "absent"},
      {set("data.path=" + (dir / "cut").string()), (dir / "cut").string()},
      {set("data.sequence=64000"), "max_position_embeddings"},
      {set("model.config=" + (dir / "short.json").string()), "max_position_embeddings"},
      {set("model.config=" + (dir / "narrow.json").string()), "100"},
      {set("train.device=cuda:7"), "cuda:7"},
      {train((dir / "file/run").string()), "file/run"},
      {train("/proc/run"), "/proc/run"},
      {train(out, {"--resume", "--overwrite"}), "choose one"},
      {{"export", (dir / "absent").string(), (dir / "model").string()}, "absent"},
      {{"export", dir.path().string(), (dir / "model").string()}, "holds no checkpoint"},
  };
  for (const auto& [arguments, message] : cases) {
    const sinew::test::Run run = run_sinew(arguments);
    EXPECT_EQ(run.exit_code, 2) << message << "\n" << run.error;
    EXPECT_THAT(run.error, HasSubstr(message));
    EXPECT_EQ(lines_of(run.error), 1u) << run.error;
    EXPECT_FALSE(fs::exists(dir / "run")) << message;
  }
}

TEST_F(TrainCli, AnExistingRunIsKept) {
  const TempDir dir;
  const Arguments once = train(dir / "run", {"--set", "train.steps=2"});
  ASSERT_EQ(run_sinew(once).exit_code, 0);
  const std::string metrics = slurp(dir / "run/metrics.jsonl");
  const sinew::test::Run again = run_sinew(once);
  EXPECT_EQ(again.exit_code, 2);
  EXPECT_THAT(again.error, AllOf(HasSubstr("--resume"), HasSubstr("--overwrite")));
  EXPECT_EQ(slurp(dir / "run/metrics.jsonl"), metrics);
  const sinew::test::Run more =
      run_sinew({"train", "--out", (dir / "run").string(), "--resume", "--set", "train.steps=4"});
  EXPECT_EQ(more.exit_code, 0) << more.error;
  EXPECT_THAT(more.error, HasSubstr("changed since the run began: train.steps: 2 -> 4"));
  EXPECT_EQ(metrics_lines(dir / "run/metrics.jsonl").size(), 4u);
  auto overwrite = once;
  overwrite.push_back("--overwrite");
  EXPECT_EQ(run_sinew(overwrite).exit_code, 0);
  EXPECT_EQ(metrics_lines(dir / "run/metrics.jsonl").size(), 2u);

  const sinew::test::Run exported = run_sinew({"export", (dir / "run").string(), (dir / "model").string()});
  EXPECT_EQ(exported.exit_code, 0) << exported.error;
  EXPECT_EQ(slurp(dir / "model/model.safetensors"), slurp(dir / "run/model/model.safetensors"));
  EXPECT_EQ(run_sinew({"export", (dir / "run").string(), (dir / "model").string()}).exit_code, 2);
}

TEST_F(TrainCli, PrintsAndExplainsItsSettings) {
  const sinew::test::Run printed =
      run_sinew({"train", "--config", path("run.toml"), "--set", "train.steps=9", "--print-config"});
  EXPECT_EQ(printed.exit_code, 0);
  EXPECT_THAT(printed.output, AllOf(HasSubstr("# --set"), HasSubstr("run.toml:2:1"), HasSubstr("# default")));
  const sinew::test::Run help = run_sinew({"train", "--help-config"});
  EXPECT_EQ(help.exit_code, 0);
  EXPECT_THAT(help.output, AllOf(HasSubstr("[optimizer]"), HasSubstr("weight_decay")));
  EXPECT_THAT(run_sinew({"train", "--help"}).output, HasSubstr("Examples:"));
}

}  // namespace
