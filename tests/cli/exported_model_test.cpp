// A model trained and exported here, run by everything that runs models: the trainer's own validation loss is
// the reference.
#ifdef SINEW_TRAIN
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "cli/tiny_world.hpp"
#include "text/loader.hpp"

namespace {

using namespace sinew::test;
using Json = nlohmann::json;
using testing::HasSubstr;

constexpr std::int64_t kSequence = 32;

class ExportedModel : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    world_ = new TempDir;
    make_tiny_world(*world_);
    if (HasFatalFailure()) return;
    spit(*world_ / "run.toml",
         "[model]\nconfig = \"" + path("model.json") + "\"\n[data]\npath = \"" + path("data") +
             "\"\nsequence = 32\nmask_documents = false\n[train]\nsteps = 30\nbatch = 4\n"
             "device = \"cpu\"\n[optimizer]\nlr = 0.01\n[eval]\nevery = 30\nbatches = 4\n");
    const auto run = run_sinew({"train", "--config", path("run.toml"), "--out", path("run")});
    ASSERT_EQ(run.exit_code, 0) << run.error;
  }
  static void TearDownTestSuite() { delete world_; }
  static std::string path(const std::string& name) { return (*world_ / name).string(); }
  static std::string model() { return path("run/model"); }

  static double validation_loss() {
    const auto lines = metrics_lines(path("run/metrics.jsonl"));
    return lines.back().at("val_loss").get<double>();
  }
  // What sinew logits says of the rows in `ids`.
  static double loss_of(const std::string& which, const std::string& ids, std::vector<std::string> more) {
    std::vector<std::string> a{"logits", which, "--ids", path(ids), "--loss", "--out", path("out.json")};
    a.insert(a.end(), more.begin(), more.end());
    const auto run = run_sinew(a);
    EXPECT_EQ(run.exit_code, 0) << run.error;
    return run.exit_code == 0 ? Json::parse(slurp(*world_ / "out.json")).at("loss").get<double>() : NAN;
  }

  static inline TempDir* world_ = nullptr;
};

// Perplexities within 0.1 %: losses within 0.001.
TEST_F(ExportedModel, HasTheTrainersPerplexityOnEveryPath) {
  const double want = validation_loss();
  ASSERT_LT(want, std::log(257.0) - 1);  // it has learnt something
  const sinew::Loader loader(
      {.sources = {{path("data")}}, .split = sinew::Split::validation, .sequence = kSequence});
  const std::int64_t rows = 16;
  ASSERT_GE(loader.samples_per_epoch(), 16U);
  const sinew::TokenBatch batch = loader.get(0, rows);
  Json ids = Json::array();
  for (std::int64_t r = 0; r < rows; ++r) {
    const auto first = batch.tokens.begin() + r * (kSequence + 1);
    ids.push_back(std::vector<sinew::TokenId>(first, first + kSequence + 1));
  }
  spit(*world_ / "ids.json", ids.dump());
  EXPECT_NEAR(loss_of(model(), "ids.json", {}), want, 1e-4);
  EXPECT_NEAR(loss_of(model(), "ids.json", {"--engine"}), want, 1e-4);
  EXPECT_NEAR(loss_of(model(), "ids.json", {"--engine", "--kv", "bf16"}), want, 1e-3);
  const auto converted = run_sinew({"convert", model(), path("m.gguf")});
  ASSERT_EQ(converted.exit_code, 0) << converted.error;
  EXPECT_NEAR(loss_of(path("m.gguf"), "ids.json", {}), want, 1e-4);
}

// sinew eval on the engine against libtorch's logits of the same tokens.
TEST_F(ExportedModel, EvaluatesAsLibtorchDoes) {
  const std::string text = tiny_text().substr(1000, 120);
  spit(*world_ / "part.txt", text);
  Json row = Json::array();
  for (const char c : text) row.push_back(static_cast<unsigned char>(c));
  spit(*world_ / "part.json", Json::array({row}).dump());
  const double want = loss_of(model(), "part.json", {});
  const auto run = run_sinew({"eval", model(), "--text", path("part.txt"), "--window", "128", "--json"});
  ASSERT_EQ(run.exit_code, 0) << run.error;
  const Json got = Json::parse(run.output);
  EXPECT_EQ(got.at("scored"), 119);
  EXPECT_NEAR(got.at("nats_per_token").get<double>(), want, 1e-4);
  EXPECT_NEAR(got.at("perplexity").get<double>() / std::exp(want), 1, 1e-3);
}

// From text to a quantized file and its report, then once more from the statistics that were kept.
TEST_F(ExportedModel, IsQuantizedWithCalibration) {
  const auto quantize = [](const std::string& out, std::vector<std::string> more) {
    std::vector<std::string> a{"quantize", model(),  path(out),       "--calibrate", path("text.txt"),
                               "--tokens", "2048",   "--eval-tokens", "1024",        "--window",
                               "64",       "--json", "--statistics",  path("m.cal")};
    a.insert(a.end(), more.begin(), more.end());
    return run_sinew(a);
  };
  const auto first = quantize("q9.gguf", {"--bits", "9"});
  ASSERT_EQ(first.exit_code, 0) << first.error;
  const Json report = Json::parse(first.output);
  EXPECT_TRUE(fs::exists(path("m.cal")));
  const auto again = quantize("again.gguf", {"--bits", "9"});
  ASSERT_EQ(again.exit_code, 0) << again.error;
  EXPECT_EQ(slurp(path("q9.gguf")), slurp(path("again.gguf")));
  const auto eval = [](const std::string& which) {
    const auto run = run_sinew(
        {"eval", which, "--text", path("text.txt"), "--window", "64", "--max-tokens", "1024", "--json"});
    EXPECT_EQ(run.exit_code, 0) << run.error;
    return Json::parse(run.output).at("nats_per_token").get<double>();
  };
  EXPECT_NEAR(eval(path("q9.gguf")), eval(model()), 0.05);
  const auto kept = quantize("q9.gguf", {"--bits", "9"});
  EXPECT_EQ(kept.exit_code, 2);
  EXPECT_THAT(kept.error, HasSubstr("--force"));
  const auto lone = run_sinew({"quantize", model(), path("x.gguf"), "--max-kl", "0.1"});
  EXPECT_EQ(lone.exit_code, 2);
  EXPECT_THAT(lone.error, HasSubstr("--calibrate"));
  EXPECT_FALSE(fs::exists(path("x.gguf")));
}

}  // namespace
#endif
