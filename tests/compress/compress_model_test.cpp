#include "compress/compress_model.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "compress/sensitivity.hpp"
#include "engine/random_models.hpp"
#include "support/property.hpp"
#include "support/tiny_run.hpp"

namespace sinew::compress {
namespace {

class CompressModel : public testing::Test {
 protected:
  void SetUp() override {
    auto config = test::random_config("deepseek_v2");
    config["vocab_size"] = 260;
    test::write_random_model(dir_ / "hf", config);
    test::write_tiny_tokenizer(dir_ / "hf" / "tokenizer.json");
    test::spit(dir_ / "text.txt", test::tiny_text().substr(0, 6000));
  }
  CompressOptions options(const std::string& out, Method method) {
    CompressOptions o;
    o.quantize.source = dir_ / "hf";
    o.quantize.out = dir_ / out;
    o.text = dir_ / "text.txt";
    o.method = method;
    o.window = 64;
    o.tokens = 1024;
    o.sensitivity_tokens = 128;
    o.eval_tokens = 512;
    return o;
  }
  test::TempDir dir_;
};

TEST_F(CompressModel, GptqIsNearerThanRounding) {
  for (const char* const type : {"Q4_0", "IQ4_NL", "Q5_1"}) {
    auto rounded = options(std::string(type) + "-round.gguf", Method::round);
    auto gptq = options(std::string(type) + "-gptq.gguf", Method::gptq);
    rounded.quantize.type = gptq.quantize.type = type;
    const CompressReport a = compress_model(rounded), b = compress_model(gptq);
    EXPECT_LT(b.quality.kl, 0.95 * a.quality.kl) << type;
    EXPECT_EQ(a.weights.file_bytes, b.weights.file_bytes);
    for (const double gain : b.layer_gain) EXPECT_LT(gain, 1);
    EXPECT_EQ(b.quality.layer_errors.size(), 3U);
    EXPECT_GT(b.quality.base_perplexity, 1);
  }
}

TEST_F(CompressModel, SizesAreKeptAndStatisticsUsedAgain) {
  auto small = options("small.gguf", Method::round);
  small.quantize.bits = 5.5;
  small.statistics = dir_ / "model.cal";
  small.quantize.report = dir_ / "report.html";
  const CompressReport first = compress_model(small);
  EXPECT_LE(first.weights.bits_per_weight, 5.5);
  EXPECT_GT(*first.predicted_kl, 0);
  EXPECT_NE(test::slurp(small.quantize.report).find("<svg"), std::string::npos);
  ASSERT_TRUE(fs::exists(small.statistics));
  small.quantize.force = true;
  const CompressReport again = compress_model(small);
  EXPECT_EQ(again.json(), first.json());
  small.quantize.bits = 7;
  const CompressReport large = compress_model(small);
  EXPECT_LT(large.quality.kl, first.quality.kl);
  EXPECT_LT(*large.predicted_kl, *first.predicted_kl);

  // The file knows its model, and damage shows.
  std::string bytes = test::slurp(small.statistics);
  bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 1);
  test::spit(small.statistics, bytes);
  EXPECT_THROW(compress_model(small), UserError);
  for (const std::size_t cut : {std::size_t{0}, std::size_t{10}, bytes.size() - 1}) {
    test::spit(dir_ / "cut.cal", bytes.substr(0, cut));
    EXPECT_THROW(load_statistics(dir_ / "cut.cal"), UserError) << cut;
  }
}

TEST_F(CompressModel, ReachesADivergence) {
  auto wanted = options("kl.gguf", Method::gptq);
  wanted.max_kl = 2e-3;
  const CompressReport report = compress_model(wanted);
  EXPECT_LE(report.quality.kl, 2e-3);
  EXPECT_GT(report.quality.kl, 1e-3);  // no larger than it has to be
  const auto json = nlohmann::json::parse(report.json());
  EXPECT_EQ(json["kl"], report.quality.kl);
  EXPECT_EQ(json["tensors"].size(), report.weights.tensors.size());
}

// Formats of single experts, from a directory and from a file that has them stacked.
TEST_F(CompressModel, ExpertsMayHaveFormatsOfTheirOwn) {
  auto split = options("split.gguf", Method::gptq);
  split.quantize.bits = 5.3;
  split.quantize.gguf.split_experts = true;
  const CompressReport report = compress_model(split);
  EXPECT_LE(report.weights.bits_per_weight, 5.3);
  std::size_t experts = 0;
  for (const TensorReport& tensor : report.weights.tensors)
    experts += tensor.name.find("_exps") == std::string::npos && tensor.name.starts_with("blk.2.ffn_gate.");
  EXPECT_EQ(experts, 8U);
  QuantizeOptions stacked = split.quantize, again = split.quantize;
  stacked.out = again.source = dir_ / "stacked.gguf";
  again.out = dir_ / "again.gguf";
  stacked.bits = again.bits = std::nullopt;
  stacked.type = again.type = "F32";
  stacked.gguf.split_experts = false;
  quantize_model(stacked);
  quantize_model(again);
  const auto base = engine::load_model(dir_ / "hf"), made = engine::load_model(again.out);
  EXPECT_NEAR(compare_models(*base, *made, test::random_text(1, 64, 256), 32).kl, 0, 1e-9);
}

TEST_F(CompressModel, SaysWhatIsWrong) {
  auto none = options("out.gguf", Method::gptq);
  EXPECT_THROW(compress_model(none), UserError);  // neither type, size nor divergence
  none.quantize.bits = 1.2;
  EXPECT_THROW(compress_model(none), UserError);  // smaller than can be
  none.quantize.bits = 5;
  none.text = dir_ / "absent.txt";
  EXPECT_THROW(compress_model(none), UserError);
  EXPECT_FALSE(fs::exists(none.quantize.out));
}

TEST(SpreadWindows, CoverTheRangeEvenly) {
  std::vector<TokenId> text(1000);
  for (std::size_t i = 0; i < text.size(); ++i) text[i] = static_cast<TokenId>(i);
  const auto all = spread_windows(text, 100, 900, 100, 10000);
  EXPECT_EQ(all.size(), 800U);
  EXPECT_EQ(all.front(), 100);
  EXPECT_EQ(all.back(), 899);
  const auto some = spread_windows(text, 0, 1000, 50, 200);
  EXPECT_EQ(some.size(), 200U);
  EXPECT_EQ(some[50], 250);
  EXPECT_EQ(spread_windows(text, 990, 1000, 64, 64).size(), 10U);
}

// More bytes never cost more.
PROPERTY(PickFormats, CostFallsWithTheBudget) {
  ModelSource source;
  std::vector<TensorChoices> choices;
  const auto count = test::draw<std::size_t>(1, 12);
  std::uint64_t least = 0, most = 0;
  for (std::size_t i = 0; i < count; ++i) {
    SourceTensor tensor{.name = std::to_string(i), .shape = {256, 4}};
    tensor.rows.rows = test::draw<std::int64_t>(1, 64);
    tensor.rows.cols = 256;
    TensorChoices choice{candidate_formats(tensor), {}};
    double cost = test::draw(1, 1000);
    for (std::size_t k = 0; k < choice.formats.size(); ++k)
      choice.costs.push_back(cost *= 0.01 * test::draw(20, 100));
    least += tensor_bytes(tensor, choice.formats.front());
    most += tensor_bytes(tensor, choice.formats.back());
    source.tensors.push_back(std::move(tensor));
    choices.push_back(std::move(choice));
  }
  double last = 1e300;
  for (int step = 0; step <= 5; ++step) {
    const std::uint64_t budget = least + (most - least) * static_cast<std::uint64_t>(step) / 5;
    const auto formats = pick_formats(source, choices, budget);
    std::uint64_t bytes = 0;
    for (std::size_t i = 0; i < count; ++i) bytes += tensor_bytes(source.tensors[i], formats[i]);
    HOLDS(bytes <= budget);
    const double cost = predicted_kl(choices, formats);
    HOLDS(cost <= last * (1 + 1e-9));
    last = cost;
  }
}

}  // namespace
}  // namespace sinew::compress
