// sinew chat and sinew eval, on the reference models.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "support/program.hpp"
#include "support/support.hpp"

namespace sinew::test {
namespace {

using ::testing::HasSubstr;

// stories260K as a directory and as one file.
class Stories : public ::testing::Test {
 protected:
  void SetUp() override {
    SINEW_NEED_DATA();
    const auto source = data_dir() / "models" / "stories260K" / "stories260K.bin";
    ASSERT_EQ(run_sinew({"convert", source.string(), dir_ / "model"}).exit_code, 0);
    ASSERT_EQ(run_sinew({"convert", dir_ / "model", dir_ / "model.gguf"}).exit_code, 0);
  }
  TempDir dir_;
};

TEST_F(Stories, AnswersLineByLine) {
  spit(dir_ / "talk", "Once upon a time\n/clear\nOnce upon a time\n");
  const std::string command = sinew_program() + " chat " + (dir_ / "model.gguf").string() +
                              " --temperature 0 --max-tokens 12 < " + (dir_ / "talk").string() + " > " +
                              (dir_ / "out").string() + " 2> " + (dir_ / "err").string();
  ASSERT_EQ(std::system(command.c_str()), 0) << slurp(dir_ / "err");
  const auto out = slurp(dir_ / "out");
  ASSERT_EQ(out.size() % 2, 0U) << out;
  EXPECT_EQ(out.substr(0, out.size() / 2), out.substr(out.size() / 2))
      << "a cleared conversation begins anew";
  EXPECT_THAT(slurp(dir_ / "err"), HasSubstr("no chat template"));
}

TEST_F(Stories, PerplexityDoesNotDependOnTheFile) {
  spit(dir_ / "text", slurp(data_dir() / "text" / "tinystories_sample_c.txt"));
  const auto eval = [&](const std::string& model, std::vector<std::string> more) {
    more.insert(more.begin(), {"eval", model, "--tasks", "perplexity", "--text", dir_ / "text", "--json"});
    const auto run = run_sinew(more);
    EXPECT_EQ(run.exit_code, 0) << run.error;
    return nlohmann::json::parse(run.output);
  };
  const auto whole = eval(dir_ / "model", {}), gguf = eval(dir_ / "model.gguf", {});
  EXPECT_NEAR(whole["perplexity"].get<double>(), gguf["perplexity"].get<double>(), 1e-3);
  EXPECT_LT(whole["perplexity"].get<double>(), 10);  // it was trained on such stories
  EXPECT_NEAR(whole["bits_per_byte"].get<double>() * whole["bytes"].get<double>() * std::log(2.0),
              whole["nats_per_token"].get<double>() * whole["scored"].get<double>(), 1e-6);
  EXPECT_EQ(whole["scored"].get<int>() + 1, whole["tokens"].get<int>());
  const auto narrow = eval(dir_ / "model", {"--window", "64", "--stride", "16"});
  EXPECT_EQ(narrow["scored"], whole["scored"]) << "every token once, whatever the windows";
  EXPECT_EQ(narrow["bytes"], whole["bytes"]);
  EXPECT_NE(narrow["perplexity"], whole["perplexity"]);
  EXPECT_EQ(run_sinew({"eval", dir_ / "model", "--text", dir_ / "none"}).exit_code, 2);
  EXPECT_THAT(run_sinew({"eval", dir_ / "model", "--text", dir_ / "text", "--window", "9999"}).error,
              HasSubstr("window of 9999"));
}

}  // namespace
}  // namespace sinew::test
