// The forward pass against the outputs of others, in every form it has.
#include "engine/session.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "engine/random_models.hpp"
#include "quant/convert.hpp"
#include "support/support.hpp"

namespace sinew::engine {
namespace {

using Json = nlohmann::json;
using Rows = std::vector<std::vector<float>>;  // logits by token

std::vector<std::vector<TokenId>> ids_of(const Json& io) {
  return io["input_ids"].get<std::vector<std::vector<TokenId>>>();
}

// All logits of all texts, fed `step` tokens at a time, all texts in each call.
std::vector<Rows> run(const std::shared_ptr<Model>& model, SessionOptions options,
                      const std::vector<std::vector<TokenId>>& texts, std::size_t step) {
  Session session(model, options);
  std::vector<Sequence> sequences;
  for (std::size_t i = 0; i < texts.size(); ++i) sequences.push_back(session.make_sequence());
  std::vector<Rows> out(texts.size());
  for (std::size_t at = 0;; at += step) {
    std::vector<Input> inputs;
    std::vector<std::size_t> text;
    for (std::size_t i = 0; i < texts.size(); ++i) {
      if (at >= texts[i].size()) continue;
      inputs.push_back({&sequences[i], std::span(texts[i]).subspan(at, std::min(step, texts[i].size() - at)),
                        Logits::all});
      text.push_back(i);
    }
    if (inputs.empty()) break;
    session.forward(inputs, [&](std::size_t input, index_t, std::span<const float> logits) {
      out[text[input]].emplace_back(logits.begin(), logits.end());
    });
  }
  return out;
}

double worst(const Rows& a, const Rows& b) {
  EXPECT_EQ(a.size(), b.size());
  double most = 0;
  for (std::size_t t = 0; t < std::min(a.size(), b.size()); ++t)
    for (std::size_t v = 0; v < a[t].size(); ++v) {
      const double difference = std::abs(a[t][v] - b[t][v]);
      most = std::isnan(difference) ? 1e9 : std::max(most, difference);
    }
  return most;
}

class EngineGolden : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    SINEW_NEED_DATA();
    path_ = test::data_dir() / "golden" / GetParam();
    io_ = Json::parse(test::slurp(path_ / "io.json"));
    want_ = io_["logits"].get<std::vector<Rows>>();
    texts_ = ids_of(io_);
  }
  void expect_logits(const std::shared_ptr<Model>& model, const SessionOptions& options, std::size_t step) {
    const auto got = run(model, options, texts_, step);
    for (std::size_t i = 0; i < got.size(); ++i) EXPECT_LT(worst(got[i], want_[i]), 1e-4) << "text " << i;
  }

  test::fs::path path_;
  Json io_;
  std::vector<Rows> want_;
  std::vector<std::vector<TokenId>> texts_;
};

TEST_P(EngineGolden, PrefillAndTokenByTokenInEveryForm) {
  const auto model = load_model(path_);
  for (const LatentForm form : {LatentForm::automatic, LatentForm::absorbed, LatentForm::expanded})
    for (const std::size_t step : {1u, 7u, 33u, 1000u}) {
      SCOPED_TRACE(fmt::format("form {} step {}", static_cast<int>(form), step));
      expect_logits(model, {.kv = KvType::f32, .cache_tokens = 256, .form = form}, step);
    }
  expect_logits(model, {.kv = KvType::f32, .cache_tokens = 256, .batch_tokens = 50}, 1000);
}

TEST_P(EngineGolden, GgufOfTheSameModel) {
  const test::TempDir dir;
  for (const bool joined : {false, true}) {
    ConvertOptions options;
    options.source = path_;
    options.out = dir / fmt::format("{}.gguf", joined);
    options.gguf.joined_kv_b = joined;
    convert_model(options);
    const auto model = load_model(options.out);
    for (const std::size_t step : {1u, 1000u})
      expect_logits(model, {.kv = KvType::f32, .cache_tokens = 256}, step);
  }
}

TEST_P(EngineGolden, GreedyText) {
  const auto model = load_model(path_);
  Session session(model, {.kv = KvType::f32, .cache_tokens = 256});
  Sequence sequence = session.make_sequence();
  std::vector<TokenId> next = io_["greedy"]["prompt"].get<std::vector<TokenId>>(), made;
  const auto want = io_["greedy"]["generated"].get<std::vector<TokenId>>();
  while (made.size() < want.size()) {
    const auto logits = session.forward(sequence, next);
    next = {static_cast<TokenId>(std::max_element(logits.begin(), logits.end()) - logits.begin())};
    made.push_back(next[0]);
  }
  EXPECT_EQ(made, want);
}

INSTANTIATE_TEST_SUITE_P(Cases, EngineGolden, ::testing::Values("v2_lite_greedy", "mixtral"),
                         [](const auto& test) { return std::string(test.param); });

// Relative to the size of the logits; one expert chosen otherwise moves a token by more, so the mean counts.
double mean_error(const Rows& a, const Rows& b) {
  double squares = 0, errors = 0;
  for (std::size_t t = 0; t < a.size(); ++t)
    for (std::size_t v = 0; v < a[t].size(); ++v) {
      errors += std::pow(a[t][v] - b[t][v], 2);
      squares += std::pow(b[t][v], 2);
    }
  return std::sqrt(errors / squares);
}

TEST(Session, EveryFamilyInEveryFormAndFromEitherFile) {
  for (const char* family : {"llama", "qwen3_moe", "mixtral", "deepseek_v2", "deepseek_v3"}) {
    SCOPED_TRACE(family);
    const test::TempDir dir;
    test::write_random_model(dir / "hf", test::random_config(family));
    ConvertOptions options;
    options.source = dir / "hf";
    options.out = dir / "m.gguf";
    options.gguf.mtp = true;
    convert_model(options);
    const auto model = load_model(dir / "hf"), other = load_model(options.out);
    EXPECT_EQ(model->predictions.size(), other->predictions.size());
    EXPECT_EQ(model->bytes_per_token(), other->bytes_per_token());
    const std::vector<std::vector<TokenId>> texts{test::random_text(1, 150, 96)};
    const SessionOptions plain{.kv = KvType::f32, .cache_tokens = 160};
    const auto want = run(model, plain, texts, 1000);
    EXPECT_LT(worst(run(other, plain, texts, 1000)[0], want[0]), 1e-4);
    EXPECT_LT(worst(run(other, plain, texts, 1)[0], want[0]), 1e-4);
    for (const LatentForm form : {LatentForm::absorbed, LatentForm::expanded})
      for (const std::size_t step : {1u, 40u}) {
        auto forced = plain;
        forced.form = form;
        EXPECT_LT(worst(run(model, forced, texts, step)[0], want[0]), 1e-4);
      }
  }
}

TEST(Session, SmallerCachesStayNear) {
  for (const char* family : {"llama", "deepseek_v2"}) {
    SCOPED_TRACE(family);
    const test::TempDir dir;
    auto json = test::random_config(family);
    if (json.contains("n_routed_experts")) json["n_routed_experts"] = 0, json.erase("topk_method");
    test::write_random_model(dir / "hf", json);
    const auto model = load_model(dir / "hf");
    const std::vector<std::vector<TokenId>> texts{test::random_text(2, 150, 96)};
    const auto want = run(model, {.kv = KvType::f32, .cache_tokens = 160}, texts, 1000);
    for (const auto& [type, bound] :
         {std::pair{KvType::f16, 0.01}, {KvType::bf16, 0.015}, {KvType::q8, 0.02}, {KvType::q4, 0.3}})
      for (const std::size_t step : {1u, 40u, 1000u})
        EXPECT_LT(mean_error(run(model, {.kv = type, .cache_tokens = 160}, texts, step)[0], want[0]), bound)
            << kv_type_name(type) << " step " << step;
  }
}

TEST(Session, TextsOfDifferentLengthsTogetherAsAlone) {
  SINEW_NEED_DATA();
  for (const char* name : {"v2_lite_greedy", "mixtral"}) {
    const auto path = test::data_dir() / "golden" / name;
    const auto model = load_model(path);
    const auto all = ids_of(Json::parse(test::slurp(path / "io.json")));
    std::vector<std::vector<TokenId>> texts;
    for (const std::size_t length : {1u, 80u, 3u, 31u, 32u, 47u})
      texts.emplace_back(all[length % 2].begin(),
                         all[length % 2].begin() + static_cast<std::ptrdiff_t>(length));
    const SessionOptions options{.kv = KvType::f32, .cache_tokens = 512, .batch_tokens = 64};
    const auto together = run(model, options, texts, 13);
    for (std::size_t i = 0; i < texts.size(); ++i)
      EXPECT_LT(worst(together[i], run(model, options, {texts[i]}, 1000)[0]), 1e-4) << name << " text " << i;
  }
}

TEST(Session, ForkedTextsShareTheirBeginning) {
  SINEW_NEED_DATA();
  const auto path = test::data_dir() / "golden" / "v2_lite_greedy";
  const auto model = load_model(path);
  const auto ids = ids_of(Json::parse(test::slurp(path / "io.json")));
  Session session(model, {.kv = KvType::f32, .cache_tokens = 512});
  Sequence first = session.make_sequence();
  session.forward(first, std::span(ids[0]).first(70));
  const index_t before = session.pool().free_pages();
  Sequence second = first.fork(45);
  EXPECT_EQ(session.pool().free_pages(), before);
  const auto other = session.forward(second, std::span(ids[1]).first(8));
  const std::vector<float> forked(other.begin(), other.end());
  EXPECT_EQ(session.pool().free_pages(), before - 1);  // the page they both write to
  std::vector<TokenId> whole(ids[0].begin(), ids[0].begin() + 45);
  whole.insert(whole.end(), ids[1].begin(), ids[1].begin() + 8);
  Sequence third = session.make_sequence();
  const auto plain = session.forward(third, whole);
  EXPECT_LT(worst({forked}, {{plain.begin(), plain.end()}}), 1e-4);
  const auto untouched = session.forward(first, std::span(ids[0]).subspan(70, 1));
  Sequence fourth = session.make_sequence();
  const std::vector<float> kept(untouched.begin(), untouched.end());
  const auto again = session.forward(fourth, std::span(ids[0]).first(71));
  EXPECT_LT(worst({kept}, {{again.begin(), again.end()}}), 1e-4);
}

TEST(Session, SaysWhatIsWrong) {
  SINEW_NEED_DATA();
  const auto model = load_model(test::data_dir() / "golden" / "mixtral");
  Session session(model, {.kv = KvType::f32, .cache_tokens = 40});
  Sequence sequence = session.make_sequence();
  EXPECT_THROW(session.forward(sequence, std::vector<TokenId>{1, 320}), UserError);
  EXPECT_THROW(session.forward(sequence, std::vector<TokenId>(65, 1)), UserError);  // two pages are 64 tokens
  EXPECT_EQ(sequence.length(), 0);
  session.forward(sequence, std::vector<TokenId>(30, 1));
  EXPECT_EQ(sequence.length(), 30);
  EXPECT_THROW(parse_kv_type("f17"), UserError);
}

}  // namespace
}  // namespace sinew::engine
