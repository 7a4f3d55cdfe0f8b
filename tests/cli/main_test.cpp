// The program as a whole: its help and its answer to a command it does not have.
#include <gtest/gtest.h>

#include "support/support.hpp"

namespace sinew::test {

TEST(Program, NamesTheNearestCommand) {
  const auto run = run_sinew({"trian"});
  EXPECT_EQ(run.exit_code, 2);
  EXPECT_EQ(run.error, "sinew: no command 'trian'; did you mean \"train\"? (try --help)\n");
  EXPECT_EQ(run.output, "");
}

TEST(Program, HelpListsEveryCommand) {
  const auto run = run_sinew({"--help"});
  EXPECT_EQ(run.exit_code, 0);
  for (const char* name : {"tokenizer", "data", "train", "generate", "logits", "export", "convert", "inspect",
                           "plot", "doctor", "plan", "quantize", "chat", "eval"})
    EXPECT_NE(run.output.find(name), std::string::npos) << name;
}

}  // namespace sinew::test
