#include "config/run_config.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.hpp"
#include "config/run_settings.hpp"
#include "support/support.hpp"

namespace sinew {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::StartsWith;

std::string error_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const UserError& error) {
    return error.what();
  }
  return "no error";
}

std::string toml_error(const std::string& text) {
  return error_of([&] {
    RunConfig config;
    apply_toml(config, text, "run.toml");
  });
}

RunConfig sound() {
  RunConfig config;
  apply_set(config, "model.config=demo-moe");
  apply_set(config, "data.path=out/data");
  return config;
}

std::string check_error(std::initializer_list<const char*> sets) {
  return error_of([&] {
    RunConfig config = sound();
    for (const char* set : sets) apply_set(config, set);
    check_run_config(config);
  });
}

TEST(RunConfig, LaterSourcesWinAndSayWhere) {
  RunConfig config;
  apply_toml(config, "[optimizer]\nlr = 1e-3\nbeta2 = 0.99\n", "base.toml");
  apply_toml(config, "optimizer.lr = 2e-3\n", "run.toml");
  apply_set(config, "train.steps=7");
  EXPECT_EQ(config.optimizer.lr, 2e-3);
  EXPECT_EQ(config.optimizer.beta2, 0.99);
  EXPECT_EQ(config.train.steps, 7);
  EXPECT_EQ(config.origins.at("optimizer.beta2"), "base.toml:3:1");
  EXPECT_THAT(config.origins.at("optimizer.lr"), StartsWith("run.toml:1:"));
  const std::string printed = print_config(config);
  EXPECT_THAT(printed, HasSubstr("optimizer.beta2 =            0.99                     # base.toml:3:1"));
  EXPECT_THAT(printed, HasSubstr("train.steps =                7                        # --set"));
  EXPECT_THAT(printed, HasSubstr("# default"));
}

TEST(RunConfig, TheSavedFileReadsBackTheSame) {
  RunConfig config = sound();
  for (const char* set :
       {"eval.sample_prompt=say \"a\\b\"\tc", "optimizer.lr=0.1", "data.weights=0.25", "optimizer.eps=1e-30",
        "schedule.step_fractions=[0.5, 0.75]", "data.path=a,b", "log.tensorboard=false"})
    apply_set(config, set);
  RunConfig again;
  apply_toml(again, to_toml(config), "saved");
  EXPECT_TRUE(config_differences(config, again).empty());
  EXPECT_EQ(again.eval.sample_prompt, "say \"a\\b\"\tc");
  EXPECT_EQ(again.data.path, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(to_toml(again), to_toml(config));
  EXPECT_EQ(config_differences(RunConfig{}, config)[0], "model.config: \"\" -> \"demo-moe\"");
}

TEST(RunConfig, UnknownNamesGetTheNearestKnownOne) {
  EXPECT_EQ(toml_error("[optimizer]\nlr = 1e-3\nbeta_1 = 0.9\n"),
            "run.toml:3:1: unknown setting optimizer.beta_1; did you mean \"optimizer.beta1\"?");
  EXPECT_EQ(toml_error("[optimiser]\nlr = 1\n"),
            "run.toml:1:2: unknown section [optimiser]; did you mean \"optimizer\"?");
  EXPECT_EQ(toml_error("lr = 1\n"), "run.toml:1:1: lr belongs under [optimizer]");
  EXPECT_EQ(error_of([] {
              RunConfig config;
              apply_set(config, "train.step=3");
            }),
            "--set train.step=3: unknown setting train.step; did you mean \"train.steps\"?");
}

TEST(RunConfig, WrongValuesAreNamed) {
  EXPECT_EQ(toml_error("[train]\nsteps = \"many\"\n"),
            "run.toml:2:1: train.steps must be an integer, not text");
  EXPECT_EQ(toml_error("[train]\nsteps = 0\n"), "run.toml:2:1: train.steps is 0, but must be at least 1");
  EXPECT_EQ(toml_error("[schedule]\nkind = \"cosin\"\n"),
            "run.toml:2:1: schedule.kind is \"cosin\", but must be one of cosine, wsd, step, constant; did "
            "you mean \"cosine\"?");
  EXPECT_THAT(toml_error("[optimizer]\nlr = nan\n"), HasSubstr("finite"));
  EXPECT_THAT(toml_error("[train\nsteps"), StartsWith("run.toml:1:"));
  EXPECT_EQ(toml_error("train = 3\n"), "run.toml:1:1: train is a section, write [train]");
  for (const char* set : {"train.steps", "steps=3", "train.steps=", "train.steps=3.5", "train.steps=1\nx=2",
                          "log.tensorboard=maybe"})
    EXPECT_THAT(error_of([&] {
                  RunConfig config;
                  apply_set(config, set);
                }),
                StartsWith("--set "))
        << set;
}

TEST(RunConfig, ContradictionsNameBothSettings) {
  EXPECT_EQ(check_error({}), "no error");
  EXPECT_EQ(check_error({"train.steps=10", "schedule.warmup=20"}),
            "schedule.warmup (--set) is 20, more than train.steps (--set) = 10");
  EXPECT_THAT(check_error({"train.micro_batch=16"}),
              AllOf(HasSubstr("train.micro_batch"), HasSubstr("train.batch (default) = 8")));
  EXPECT_THAT(check_error({"train.batch_start=2"}), HasSubstr("train.batch_ramp"));
  EXPECT_THAT(check_error({"train.batch_ramp=2"}), HasSubstr("train.batch_start"));
  EXPECT_THAT(check_error({"data.weights=1,2"}), HasSubstr("data.path"));
  EXPECT_THAT(check_error({"schedule.kind=wsd", "schedule.decay_fraction=0.9", "schedule.warmup=200"}),
              HasSubstr("leave no room"));
  EXPECT_THAT(check_error({"balance.device_alpha=0.1"}), HasSubstr("balance.device_groups"));
  EXPECT_THAT(check_error({"train.spike_factor=0.5"}), HasSubstr("over 1"));
  EXPECT_THAT(check_error({"data.path="}), HasSubstr("sinew data"));
}

TEST(RunConfig, HostileTomlIsRefusedNotCrashedOn) {
  std::string deep = "a", braces = "a=", brackets = "a=";
  for (int i = 0; i < 100000; ++i) deep += ".a";
  for (int i = 0; i < 50000; ++i) braces += "{a=", brackets += "[";
  for (const auto& text :
       {deep + "=1", "[" + deep + "]", braces, brackets, std::string(1 << 20, 'x'), std::string("\0\xff", 2)})
    EXPECT_NE(toml_error(text), "no error");
}

TEST(RunConfig, EveryPresetOfARunIsSound) {
  int seen = 0;
  for (const auto& entry : std::filesystem::directory_iterator(test::source_path("configs/runs"))) {
    RunConfig config;
    apply_toml_file(config, entry.path());
    apply_set(config, "data.path=x");
    EXPECT_NO_THROW(check_run_config(config)) << entry.path();
    ++seen;
  }
  EXPECT_GE(seen, 2);
}

TEST(RunConfig, HelpListsEverySetting) {
  const std::string help = help_config();
  for (const auto& setting : run_settings())
    EXPECT_THAT(help, HasSubstr("  " + setting.key + " = ")) << setting.name();
  EXPECT_THAT(help, HasSubstr("adamw | muon"));
}

}  // namespace
}  // namespace sinew
