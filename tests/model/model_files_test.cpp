// load_model and save_model.
#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "model/families.hpp"
#include "ops/tensor.hpp"
#include "storage/safetensors.hpp"
#include "support/support.hpp"

namespace sinew {
namespace {

using test::TempDir;
using ::testing::HasSubstr;
namespace fs = std::filesystem;

std::string load_complaint(const fs::path& directory) {
  return test::complaint([&] { load_model(directory, at::kFloat, at::kCPU); });
}

void expect_equal(const LanguageModel& a, const LanguageModel& b) {
  ASSERT_EQ(a.parameters().size(), b.parameters().size());
  for (std::size_t i = 0; i < a.parameters().size(); ++i) {
    EXPECT_EQ(a.parameters()[i].name, b.parameters()[i].name);
    EXPECT_EQ(a.parameters()[i].tensor.scalar_type(), b.parameters()[i].tensor.scalar_type());
    EXPECT_TRUE(at::equal(a.parameters()[i].tensor, b.parameters()[i].tensor)) << a.parameters()[i].name;
  }
}

// The tensors of model.safetensors as (info, bytes), changed and written back.
struct Entry {
  TensorInfo info;
  std::vector<std::byte> bytes;
};
void edit(const fs::path& directory, const std::function<void(std::vector<Entry>&)>& change) {
  std::vector<Entry> entries;
  {
    const Safetensors file(directory / "model.safetensors");
    for (const auto& tensor : file.tensors()) {
      const auto data = file.data(tensor);
      entries.push_back({tensor, {data.begin(), data.end()}});
    }
  }
  change(entries);
  std::vector<TensorInfo> infos;
  for (const auto& entry : entries) infos.push_back(entry.info);
  SafetensorsWriter writer(directory / "model.safetensors", infos);
  for (const auto& entry : entries) writer.write(entry.bytes.data(), entry.bytes.size());
  writer.commit();
}

Entry zeros(const std::string& name, DType dtype, std::vector<std::int64_t> shape) {
  TensorInfo info{.name = name, .dtype = dtype, .shape = shape};
  const auto bytes = static_cast<std::size_t>(info.elements()) * dtype_size(dtype);
  return {info, std::vector<std::byte>(bytes)};
}

class ModelFiles : public ::testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Models, ModelFiles, test::all_families(), test::family_name);

TEST_P(ModelFiles, RoundTripWholeAndSharded) {
  const auto config = test::tiny_model(GetParam());
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    const TempDir dir;
    const auto model = test::random_model(config, dtype);
    save_model(*model, dir / "whole");
    EXPECT_FALSE(fs::exists(dir / "whole" / "model.safetensors.index.json"));
    expect_equal(*load_model(dir / "whole", dtype, at::kCPU), *model);
    save_model(*model, dir / "sharded", 20000);
    EXPECT_TRUE(fs::exists(dir / "sharded" / "model.safetensors.index.json"));
    const auto loaded = load_model(dir / "sharded", dtype, at::kCPU);
    expect_equal(*loaded, *model);
    auto read = loaded->config();
    EXPECT_EQ(write_model_config(read), test::slurp(dir / "sharded" / "config.json"));
    EXPECT_EQ(read.dtype, dtype == at::kFloat ? "float32" : "bfloat16");
    read.dtype = config.dtype;
    EXPECT_TRUE(read == parse_model_config(write_model_config(config)));
  }
}

TEST(SaveModel, IndexNamesEveryTensorAndItsSize) {
  const TempDir dir;
  const auto model = test::random_model(test::tiny_mixtral(), at::kFloat);
  save_model(*model, dir.path(), 20000);
  const auto index = nlohmann::json::parse(test::slurp(dir / "model.safetensors.index.json"));
  std::uint64_t bytes = 0;
  for (const auto& parameter : model->parameters()) {
    const auto file = index["weight_map"][parameter.name].get<std::string>();
    EXPECT_TRUE(fs::exists(dir / file));
    bytes += parameter.tensor.nbytes();
  }
  EXPECT_EQ(index["weight_map"].size(), model->parameters().size());
  EXPECT_EQ(index["metadata"]["total_size"].get<std::uint64_t>(), bytes);
}

TEST(SaveModel, ReplacesAModelOfAnotherSharding) {
  const TempDir dir;
  const auto first = test::random_model(test::tiny_llama(), at::kFloat, 1),
             second = test::random_model(test::tiny_llama(), at::kFloat, 2);
  save_model(*first, dir.path(), 5000);
  save_model(*second, dir.path());
  expect_equal(*load_model(dir.path(), at::kFloat, at::kCPU), *second);
  EXPECT_FALSE(fs::exists(dir / "model.safetensors.index.json"));
  save_model(*first, dir.path(), 5000);
  expect_equal(*load_model(dir.path(), at::kFloat, at::kCPU), *first);
  EXPECT_FALSE(fs::exists(dir / "model.safetensors"));
}

TEST(SaveModel, GenerationConfigNamesTheEnds) {
  const TempDir dir;
  auto config = test::tiny_llama();
  config.bos_token_ids = {1};
  config.eos_token_ids = {2, 3};
  save_model(LanguageModel(config, at::kFloat, at::kCPU, 1), dir.path());
  const auto json = nlohmann::json::parse(test::slurp(dir / "generation_config.json"));
  EXPECT_EQ(json["bos_token_id"], 1);
  EXPECT_EQ(json["eos_token_id"], (std::vector<int>{2, 3}));
}

TEST(SaveModel, OtherTypesConvertOnLoad) {
  const TempDir dir;
  const auto model = test::random_model(test::tiny_deepseek_v3(), at::kBFloat16);
  save_model(*model, dir.path());
  const auto wide = load_model(dir.path(), at::kFloat, at::kCPU);
  for (std::size_t i = 0; i < wide->parameters().size(); ++i) {
    EXPECT_TRUE(at::equal(wide->parameters()[i].tensor, model->parameters()[i].tensor.to(at::kFloat)));
  }
  // The correction bias is kept in fp32 whatever the rest is.
  const Safetensors file(dir / "model.safetensors");
  EXPECT_EQ(file.find("model.layers.1.mlp.gate.e_score_correction_bias")->dtype, DType::F32);
  EXPECT_EQ(file.find("model.layers.1.mlp.gate.weight")->dtype, DType::BF16);
}

TEST(LoadModel, SaysWhichTensorIsWrong) {
  const TempDir dir;
  EXPECT_THAT(load_complaint(dir / "none"), HasSubstr("none: no such model directory"));
  save_model(*test::random_model(test::tiny_llama(), at::kFloat), dir.path());
  edit(dir.path(), [](auto& entries) { entries.pop_back(); });
  EXPECT_THAT(load_complaint(dir.path()), HasSubstr("is missing"));

  save_model(*test::random_model(test::tiny_llama(), at::kFloat), dir.path());
  edit(dir.path(),
       [](auto& entries) { entries.push_back(zeros("model.layers.0.extra.weight", DType::F32, {2})); });
  EXPECT_THAT(load_complaint(dir.path()),
              HasSubstr("'model.layers.0.extra.weight' is not one that config.json describes"));

  save_model(*test::random_model(test::tiny_llama(), at::kFloat), dir.path());
  edit(dir.path(), [](auto& entries) {
    for (auto& entry : entries) {
      if (entry.info.name == "model.norm.weight") entry = zeros(entry.info.name, DType::F32, {23});
    }
  });
  EXPECT_THAT(load_complaint(dir.path()),
              HasSubstr("'model.norm.weight' has shape [23], config.json asks for [24]"));

  save_model(*test::random_model(test::tiny_llama(), at::kFloat), dir.path());
  edit(dir.path(), [](auto& entries) {
    for (auto& entry : entries) {
      if (entry.info.name == "model.norm.weight") entry = zeros(entry.info.name, DType::I32, {24});
    }
  });
  EXPECT_THAT(load_complaint(dir.path()), HasSubstr("'model.norm.weight' is I32"));
}

TEST(LoadModel, MtpLayersAbsentFromTheFilesAreLeftOut) {
  const TempDir dir;
  const auto model = test::random_model(test::tiny_deepseek_v3(), at::kFloat);
  save_model(*model, dir.path());
  edit(dir.path(), [](auto& entries) {
    std::erase_if(entries, [](const Entry& e) { return e.info.name.starts_with("model.layers.3."); });
  });
  const auto loaded = load_model(dir.path(), at::kFloat, at::kCPU);
  EXPECT_EQ(loaded->config().num_nextn_predict_layers, 0);
  const at::NoGradGuard no_grad;
  const auto tokens = test::random_tokens(1, 5, 61);
  EXPECT_TRUE(at::equal(loaded->logits(tokens), model->logits(tokens)));
}

TEST(LoadModel, CopiesThatPublicCheckpointsHoldAreAccepted) {
  const TempDir dir;
  save_model(*test::random_model(test::tiny_deepseek_v3(), at::kFloat), dir.path());
  edit(dir.path(), [](auto& entries) {
    entries.push_back(zeros("model.layers.3.embed_tokens.weight", DType::F32, {61, 32}));
    entries.push_back(zeros("model.layers.3.shared_head.head.weight", DType::F32, {61, 32}));
    entries.push_back(zeros("model.layers.0.self_attn.rotary_emb.inv_freq", DType::F32, {4}));
  });
  EXPECT_EQ(load_model(dir.path(), at::kFloat, at::kCPU)->config().num_nextn_predict_layers, 1);
  auto tied = test::tiny_llama();
  tied.tie_word_embeddings = true;
  save_model(*test::random_model(tied, at::kFloat), dir / "tied");
  edit(dir / "tied", [](auto& entries) { entries.push_back(zeros("lm_head.weight", DType::F32, {61, 24})); });
  EXPECT_NO_THROW(load_model(dir / "tied", at::kFloat, at::kCPU));
}

TEST(LoadModel, Fp8BlocksTimesTheirScales) {
  const TempDir dir;
  auto config = test::tiny_llama();
  config.hidden_size = 160;  // two blocks of columns, the second not whole
  save_model(*test::random_model(config, at::kFloat), dir.path());
  const std::string name = "model.layers.0.mlp.gate_proj.weight";  // [40, 160]
  const std::vector<float> scales{0.5F, 4.0F};
  edit(dir.path(), [&](auto& entries) {
    for (auto& entry : entries) {
      if (entry.info.name != name) continue;
      entry = zeros(name, DType::F8_E4M3, {40, 160});
      for (std::size_t i = 0; i < entry.bytes.size(); ++i)
        entry.bytes[i] = static_cast<std::byte>(0x38 + i % 3);  // 1, 1.125, 1.25
    }
    entries.push_back(zeros(name + "_scale_inv", DType::F32, {1, 2}));
    std::memcpy(entries.back().bytes.data(), scales.data(), 8);
  });
  const auto model = load_model(dir.path(), at::kFloat, at::kCPU);
  for (const auto& parameter : model->parameters()) {
    if (parameter.name != name) continue;
    for (std::int64_t i = 0; i < 40 * 160; ++i) {
      const float want = (1 + static_cast<float>(i % 3) / 8) * scales[i % 160 < 128 ? 0 : 1];
      ASSERT_EQ(parameter.tensor.view(-1)[i].item<float>(), want);
    }
  }
  edit(dir.path(), [](auto& entries) { entries.pop_back(); });
  EXPECT_THAT(load_complaint(dir.path()), HasSubstr("is FP8 without its"));
}

TEST(SaveModel, UnwritableDirectoryIsAnError) {
  const auto model = test::random_model(test::tiny_llama(), at::kFloat);
  EXPECT_THROW(save_model(*model, "/proc/none"), IoError);
}

}  // namespace
}  // namespace sinew
