#include "model/logits_report.hpp"

#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "model/families.hpp"
#include "ops/tensor.hpp"
#include "support/support.hpp"

namespace sinew {
namespace {

using ::testing::HasSubstr;

TEST(ReadTokenRows, ListsAndObjects) {
  const test::TempDir dir;
  test::spit(dir / "a", "[[1, 2], [3, 4]]");
  test::spit(dir / "b", R"({"name": "x", "input_ids": [[1, 2], [3, 4]]})");
  EXPECT_EQ(read_token_rows(dir / "a"), (TokenRows{{1, 2}, {3, 4}}));
  EXPECT_EQ(read_token_rows(dir / "b"), (TokenRows{{1, 2}, {3, 4}}));
}

TEST(ReadTokenRows, OneLineForEveryMistake) {
  const test::TempDir dir;
  const std::vector<std::pair<std::string, std::string>> cases{
      {"[[1,2],[3]]", "row 1 has 1 tokens, row 0 has 2"},
      {"[[1,-1]]", "row 0 holds -1, which is not a token id"},
      {"[[1,1.5]]", "row 0 holds 1.5, which is not a token id"},
      {"[[1,99999999999]]", "row 0 holds 99999999999, which is not a token id"},
      {"[[1,\"a\"]]", "row 0 holds \"a\", which is not a token id"},
      {"[]", "no rows of token ids"},
      {"3", "no rows of token ids"},
      {"[[]]", "row 0 is not a list of token ids"},
      {"[1,2]", "row 0 is not a list of token ids"},
      {"{\"ids\": [[1]]}", "an object without \"input_ids\""},
      {"[[1,2]", "not valid JSON"},
      {"", "not valid JSON"},
      {std::string(100, '['), "nested too deeply"},
  };
  for (const auto& [text, message] : cases) {
    test::spit(dir / "ids.json", text);
    const auto got = test::complaint([&] { read_token_rows(dir / "ids.json"); });
    EXPECT_THAT(got, HasSubstr(message));
    EXPECT_THAT(got, HasSubstr("ids.json"));
  }
}

TEST(LogitsReport, TokensTheModelCannotTake) {
  const test::TempDir dir;
  const auto config = test::tiny_llama();
  LanguageModel model(config, at::kFloat, at::kCPU, 1);
  const auto write = [&](const TokenRows& rows, bool loss) {
    return test::complaint([&] { write_logits_report(model, rows, {.loss = loss}, at::kCPU, dir / "out"); });
  };
  EXPECT_THAT(write({{1, config.vocab_size}}, false), HasSubstr("is outside the model's vocabulary of"));
  EXPECT_THAT(write({std::vector<std::int64_t>(config.max_position_embeddings + 1, 1)}, false),
              HasSubstr("the model's max_position_embeddings is"));
  EXPECT_THAT(write({{1}, {2}}, true), HasSubstr("two tokens or more"));
  EXPECT_FALSE(test::fs::exists(dir / "out"));
}

TEST(LogitsReport, NumbersReadBackExactly) {
  const test::TempDir dir;
  LanguageModel model(test::tiny_llama(), at::kFloat, at::kCPU, 1);
  const TokenRows rows{{1, 2, 3}, {4, 5, 6}};
  write_logits_report(model, rows, {.loss = true, .grad_norms = true}, at::kCPU, dir / "out");
  const auto json = nlohmann::json::parse(test::slurp(dir / "out"));
  const at::NoGradGuard no_grad;
  for (std::int64_t b = 0; b < 2; ++b) {
    const auto logits = model.logits(at::tensor(rows[b], at::kLong).unsqueeze(0))[0];
    for (std::int64_t t = 0; t < 3; ++t) {
      EXPECT_TRUE(at::equal(at::tensor(json["logits"][b][t].get<std::vector<float>>()), logits[t]));
    }
  }
  EXPECT_EQ(json["grad_norms"].size(), model.parameters().size());
  EXPECT_GT(json["grad_total_norm"].get<double>(), 0);
}

}  // namespace
}  // namespace sinew
