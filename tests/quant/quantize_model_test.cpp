#include "quant/quantize_model.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "base/error.hpp"
#include "quant/gguf_config.hpp"
#include "quant/recipe.hpp"
#include "storage/gguf.hpp"
#include "support/support.hpp"

namespace sinew {
namespace {

QuantizeReport quantize(const fs::path& source, const fs::path& out, const std::string& type,
                        double bits = 0) {
  QuantizeOptions options;
  options.source = source;
  options.out = out;
  options.type = type;
  if (bits > 0) options.bits = bits;
  return quantize_model(options);
}

fs::path golden(const char* name) { return test::data_dir() / "golden" / name; }

}  // namespace

TEST(QuantizeModel, EveryMatrixGetsTheFormatAndTheReportIsTrue) {
  SINEW_NEED_DATA();
  const test::TempDir dir;
  const QuantizeReport report = quantize(golden("mixtral"), dir / "q.gguf", "q8_0");
  const Gguf file(dir / "q.gguf");
  const ModelSource original = open_model_source(golden("mixtral")), read = open_model_source(dir / "q.gguf");
  ASSERT_EQ(report.tensors.size(), original.tensors.size());
  EXPECT_EQ(report.file_bytes, fs::file_size(dir / "q.gguf"));
  for (std::size_t i = 0; i < report.tensors.size(); ++i) {
    const SourceTensor &a = original.tensors[i], &b = read.tensors[i];
    EXPECT_EQ(b.stored, report.tensors[i].format);
    EXPECT_EQ(b.stored, quantizable(a) ? BlockFormat::q8_0 : BlockFormat::f32) << a.name;
    std::vector<float> x(static_cast<std::size_t>(a.elements())), y(x.size());
    a.rows.read(0, a.rows.rows, x.data());
    b.rows.read(0, b.rows.rows, y.data());
    double error = 0, size = 0;
    for (std::size_t k = 0; k < x.size(); ++k) {
      error += (x[k] - y[k]) * static_cast<double>(x[k] - y[k]);
      size += x[k] * static_cast<double>(x[k]);
    }
    EXPECT_NEAR(std::sqrt(error / size), report.tensors[i].relative_error, 1e-6) << a.name;
    EXPECT_LT(report.tensors[i].relative_error, 0.01) << a.name;
  }
  EXPECT_EQ(file.get_int("general.file_type"), 7);
  EXPECT_EQ(gguf_model_config(file).moe.n_routed_experts, original.config.moe.n_routed_experts);
}

TEST(QuantizeModel, AllocationKeepsTheBudgetAndBeatsTheUniformFormatOfItsSize) {
  SINEW_NEED_DATA();
  for (const char* name : {"mixtral", "v2_lite_greedy"}) {
    const test::TempDir dir;
    const auto cost = [](const QuantizeReport& report) {
      double sum = 0;
      for (const TensorReport& tensor : report.tensors) sum += tensor.relative_error * tensor.relative_error;
      return sum;
    };
    const QuantizeReport uniform = quantize(golden(name), dir / "u.gguf", "q5_0");
    const QuantizeReport chosen = quantize(golden(name), dir / "c.gguf", "", uniform.bits_per_weight);
    EXPECT_LE(chosen.bits_per_weight, uniform.bits_per_weight);
    EXPECT_LT(cost(chosen), cost(uniform)) << name;
  }
}

TEST(QuantizeModel, AFileOfTheAskedSize) {
  SINEW_NEED_DATA();
  const test::TempDir dir;
  QuantizeOptions options;
  options.source = golden("mixtral");
  options.out = dir / "q.gguf";
  options.size = 400'000;
  const QuantizeReport report = quantize_model(options);
  EXPECT_LE(report.file_bytes, 400'000u);
  EXPECT_GT(report.file_bytes, 380'000u);
  options.force = true;
  options.size = 1000;
  EXPECT_THROW(quantize_model(options), UserError);
}

TEST(QuantizeModel, TheBitsThatARefusalNamesSuffice) {
  SINEW_NEED_DATA();
  const test::TempDir dir;
  std::string message;
  try {
    quantize(golden("mixtral"), dir / "q.gguf", "", 1);
  } catch (const UserError& error) {
    message = error.what();
  }
  EXPECT_FALSE(fs::exists(dir / "q.gguf"));
  const std::size_t at = message.find("at least --bits ");
  ASSERT_NE(at, std::string::npos) << message;
  const double least = std::stod(message.substr(at + 16));
  EXPECT_LE(quantize(golden("mixtral"), dir / "q.gguf", "", least).bits_per_weight, least);
}

TEST(QuantizeModel, AQuantizedFileCanBeQuantizedAgain) {
  SINEW_NEED_DATA();
  const test::TempDir dir;
  quantize(golden("v2_lite_greedy"), dir / "a.gguf", "q8_0");
  EXPECT_THROW(quantize(golden("v2_lite_greedy"), dir / "a.gguf", "q8_0"), UserError) << "already there";
  EXPECT_THROW(quantize(dir / "a.gguf", dir / "b.gguf", "q4_9"), UserError);
  const QuantizeReport report = quantize(dir / "a.gguf", dir / "b.gguf", "q4_0");
  EXPECT_LT(report.bits_per_weight, 6.5);
  EXPECT_EQ(Gguf(dir / "b.gguf").get_int("general.file_type"), 2);
}

TEST(QuantizeModel, SizesAsPeopleWriteThem) {
  EXPECT_EQ(parse_size("9G"), 9'000'000'000u);
  EXPECT_EQ(parse_size("1.5GiB"), 1'610'612'736u);
  EXPECT_EQ(parse_size("700M"), 700'000'000u);
  EXPECT_EQ(parse_size("12345"), 12345u);
  for (const char* bad : {"", "G", "-1G", "9X", "0", "nan", "1e30"})
    EXPECT_THROW(parse_size(bad), UserError) << bad;
}

TEST(Recipe, MixturesGiveMoreBitsWhereLlamaCppDoes) {
  SINEW_NEED_DATA();
  EXPECT_EQ(fitting_format(BlockFormat::q4_k, 128), BlockFormat::q5_0);
  EXPECT_EQ(fitting_format(BlockFormat::q4_k, 40), BlockFormat::f16);
  EXPECT_EQ(fitting_format(BlockFormat::q4_k, 512), BlockFormat::q4_k);
  ModelSource source;
  source.config.num_hidden_layers = 32;
  for (const char* name :
       {"output.weight", "blk.0.attn_v.weight", "blk.5.attn_v.weight", "blk.6.ffn_down_exps.weight",
        "blk.6.ffn_gate_exps.weight", "blk.31.ffn_down.weight", "token_embd.weight"}) {
    SourceTensor tensor;
    tensor.name = name;
    tensor.shape = {256, 256};
    tensor.rows.cols = tensor.rows.rows = 256;
    source.tensors.push_back(tensor);
  }
  const auto formats = recipe_formats(source, "q4_k_m");
  const BlockFormat k4 = BlockFormat::q4_k, k6 = BlockFormat::q6_k;
  EXPECT_EQ(formats, (std::vector<BlockFormat>{k6, k6, k4, k6, k4, k6, k4}));
}

}  // namespace sinew
