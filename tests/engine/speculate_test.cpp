// Drafts change how many passes a text takes, never the text.
#include "engine/speculate.hpp"

#include <gtest/gtest.h>

#include "base/error.hpp"
#include "engine/random_models.hpp"

namespace sinew::engine {
namespace {

TEST(LookUp, TakesTheLatestOfTheLongest) {
  std::vector<TokenId> out;
  look_up(std::vector<TokenId>{1, 2, 3, 9, 1, 2, 4, 1, 2}, 3, out);
  EXPECT_EQ(out, (std::vector<TokenId>{4, 1, 2}));
  look_up(std::vector<TokenId>{7, 1, 2, 3, 9, 2, 3, 4, 7, 1, 2, 3}, 2, out);  // four of them, further back
  EXPECT_EQ(out, (std::vector<TokenId>{9, 2}));
  look_up(std::vector<TokenId>{1, 2, 3, 4}, 3, out);
  EXPECT_TRUE(out.empty());
}

struct Made {
  Generation generation;
  SpeculationCounts counts;
};

Made make(const std::shared_ptr<Model>& model, const Speculation& speculation, double temperature,
          const std::vector<TokenId>& prompt, std::int64_t tokens) {
  Session session(model, {.kv = KvType::f32, .cache_tokens = 256});
  Sequence sequence = session.make_sequence();
  Sampler sampler({.temperature = temperature, .repetition_penalty = temperature > 0 ? 1.1 : 1.0, .seed = 5});
  Made made;
  made.generation =
      generate_speculatively(session, sequence, prompt, sampler, tokens, {}, speculation, {}, &made.counts);
  return made;
}

TEST(Speculate, TheSameTextInFewerPasses) {
  for (const char* family : {"llama", "deepseek_v3"}) {
    SCOPED_TRACE(family);
    const test::TempDir dir;
    auto json = test::random_config(family);
    if (json.contains("num_nextn_predict_layers")) json["num_nextn_predict_layers"] = 2;
    test::write_random_model(dir / "hf", json);
    const auto model = load_model(dir / "hf");
    auto prompt = test::random_text(4, 12, 96);
    for (int i = 0; i < 2; ++i) prompt.insert(prompt.end(), prompt.begin(), prompt.begin() + 12);
    for (const double temperature : {0.0, 0.8}) {
      const auto plain = make(model, {}, temperature, prompt, 120);
      EXPECT_EQ(plain.generation.tokens.size(), 120U);
      for (const Draft draft : {Draft::lookup, Draft::automatic})
        for (const index_t tokens : {0, 1, 6}) {
          const auto fast = make(model, {draft, tokens}, temperature, prompt, 120);
          EXPECT_EQ(fast.generation.tokens, plain.generation.tokens) << "draft of " << tokens;
          EXPECT_EQ(fast.counts.passes + fast.counts.accepted, 120);
          EXPECT_GT(fast.counts.drafted, 0);
          EXPECT_TRUE(temperature > 0 || draft != Draft::lookup || fast.counts.accepted > 0);
        }
    }
  }
}

// A prediction layer fed in pieces says what it says of the whole text.
TEST(Speculate, PredictionLayersKeepTheirCache) {
  const test::TempDir dir;
  test::write_random_model(dir / "hf", test::random_config("deepseek_v3"));
  const auto model = load_model(dir / "hf");
  ASSERT_EQ(model->predictions.size(), 1U);
  const auto text = test::random_text(6, 61, 96);
  const auto last = [&](std::size_t step, index_t batch) {
    Session session(model, {.kv = KvType::f32, .cache_tokens = 128, .batch_tokens = batch});
    Sequence sequence = session.make_sequence();
    std::vector<float> logits;
    for (std::size_t at = 0; at < 60; at += step) {
      std::vector<float> hidden(step * 64);
      const Input input{&sequence, std::span(text).subspan(at, step), Logits::none, hidden.data()};
      session.forward({&input, 1}, [](std::size_t, index_t, std::span<const float>) {});
      const auto out = session.predict(0, sequence, static_cast<index_t>(at),
                                       std::span(text).subspan(at + 1, step), hidden.data(), hidden.data());
      logits.assign(out.begin(), out.end());
    }
    return logits;
  };
  const auto whole = last(60, 512);
  for (const auto& [step, batch] : {std::pair{1u, 512}, {12u, 512}, {60u, 7}}) {
    const auto pieces = last(step, batch);
    for (std::size_t v = 0; v < whole.size(); ++v) ASSERT_NEAR(pieces[v], whole[v], 1e-4) << step;
  }
}

TEST(Speculate, NeedsPredictionLayersToPredict) {
  const test::TempDir dir;
  test::write_random_model(dir / "hf", test::random_config("llama"));
  EXPECT_THROW(make(load_model(dir / "hf"), {Draft::predict, 0}, 0, {1, 2}, 3), UserError);
  EXPECT_THROW(parse_draft("eagle"), UserError);
}

}  // namespace
}  // namespace sinew::engine
