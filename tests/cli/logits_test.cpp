// sinew logits against the reference models, and what it says to bad input.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "engine/random_models.hpp"
#include "support/support.hpp"

namespace sinew::test {
namespace {

using Json = nlohmann::json;
using ::testing::HasSubstr;

std::string golden(const std::string& name) { return (data_dir() / "golden" / name).string(); }

class LogitsGolden : public ::testing::TestWithParam<const char*> {};

TEST_P(LogitsGolden, EqualsTheReference) {
  SINEW_NEED_DATA();
  const TempDir dir;
  const auto out = dir / "out.json";
  const auto model = golden(GetParam());
  const auto run =
      run_sinew({"logits", model, "--ids", model + "/io.json", "--loss", "--grad-norms", "--out", out});
  ASSERT_EQ(run.exit_code, 0) << run.error;
  const auto got = Json::parse(slurp(out)), want = Json::parse(slurp(model + "/io.json"));
  double worst = 0;
  for (std::size_t b = 0; b < want["logits"].size(); ++b) {
    for (std::size_t t = 0; t < want["logits"][b].size(); ++t) {
      const auto x = got["logits"][b][t].get<std::vector<double>>(),
                 y = want["logits"][b][t].get<std::vector<double>>();
      ASSERT_EQ(x.size(), y.size());
      for (std::size_t v = 0; v < x.size(); ++v) worst = std::max(worst, std::abs(x[v] - y[v]));
    }
  }
  EXPECT_LT(worst, 1e-4);
  EXPECT_NEAR(got["loss"].get<double>(), want["loss"].get<double>(), 1e-5);
  ASSERT_EQ(got["grad_norms"].size(), want["grad_norms"].size());
  for (const auto& [name, norm] : want["grad_norms"].items()) {
    EXPECT_NEAR(got["grad_norms"][name].get<double>() / norm.get<double>(), 1, 1e-3) << name;
  }
  EXPECT_NEAR(got["grad_total_norm"].get<double>() / want["grad_total_norm"].get<double>(), 1, 1e-3);
}

INSTANTIATE_TEST_SUITE_P(Cases, LogitsGolden, ::testing::Values("v2_lite_greedy", "mixtral"),
                         [](const auto& test) { return std::string(test.param); });

double worst_logit(const Json& got, const Json& want) {
  double worst = 0;
  EXPECT_EQ(got["logits"].size(), want["logits"].size());
  for (std::size_t b = 0; b < want["logits"].size(); ++b)
    for (std::size_t t = 0; t < want["logits"][b].size(); ++t)
      for (std::size_t v = 0; v < want["logits"][b][t].size(); ++v)
        worst = std::max(
            worst, std::abs(got["logits"][b][t][v].get<double>() - want["logits"][b][t][v].get<double>()));
  return worst;
}

TEST_P(LogitsGolden, TheEngineToo) {
  SINEW_NEED_DATA();
  const TempDir dir;
  const std::string model = golden(GetParam()), out = dir / "out.json", gguf = dir / "m.gguf";
  const auto want = Json::parse(slurp(model + "/io.json"));
  ASSERT_EQ(run_sinew({"convert", model, gguf}).exit_code, 0);
  for (const std::string& source : {model, gguf}) {
    const auto run =
        run_sinew({"logits", source, "--ids", model + "/io.json", "--loss", "--engine", "--out", out});
    ASSERT_EQ(run.exit_code, 0) << run.error;
    const auto got = Json::parse(slurp(out));
    EXPECT_LT(worst_logit(got, want), 1e-4);
    EXPECT_NEAR(got["loss"].get<double>(), want["loss"].get<double>(), 1e-5);
  }
}

#ifdef SINEW_TRAIN
// Gates, rotations and scalings of every family, on both paths.
TEST(LogitsEngine, EveryFamilyAsOnLibtorch) {
  for (const char* family : {"llama", "qwen3_moe", "mixtral", "deepseek_v2", "deepseek_v3"}) {
    const TempDir dir;
    write_random_model(dir / "hf", random_config(family));
    spit(dir / "ids.json", Json(std::vector{random_text(1, 90, 96), random_text(2, 90, 96)}).dump());
    for (const bool engine : {false, true}) {
      std::vector<std::string> command{"logits", dir / "hf",
                                       "--ids",  dir / "ids.json",
                                       "--out",  dir / (engine ? "engine.json" : "torch.json")};
      if (engine) command.push_back("--engine");
      const auto run = run_sinew(command);
      ASSERT_EQ(run.exit_code, 0) << run.error;
    }
    EXPECT_LT(worst_logit(Json::parse(slurp(dir / "engine.json")), Json::parse(slurp(dir / "torch.json"))),
              1e-4)
        << family;
  }
}
#endif

// Every way to be wrong: tests/model/logits_report_test.cpp.
TEST(Logits, BadInputIsOneLineAndWritesNothing) {
  SINEW_NEED_DATA();
  const TempDir dir;
  const auto ids = dir / "ids.json", out = dir / "out.json";
  const auto fails = [&](const std::string& model, const std::string& text, const std::string& message) {
    spit(ids, text);
    const auto run = run_sinew({"logits", model, "--ids", ids, "--out", out});
    EXPECT_EQ(run.exit_code, 2);
    EXPECT_THAT(run.error, HasSubstr(message));
    EXPECT_EQ(std::count(run.error.begin(), run.error.end(), '\n'), 1) << run.error;
    EXPECT_FALSE(fs::exists(out));
  };
  fails(golden("mixtral"), "[[1,2],[3]]", "row 1 has 1 tokens, row 0 has 2");
  fails(golden("mixtral"), "[[1,320]]", "token id 320 is outside the model's vocabulary of 320");
  fails("/no/such", "[[1,2]]", "/no/such: no such model directory");
}

}  // namespace
}  // namespace sinew::test
