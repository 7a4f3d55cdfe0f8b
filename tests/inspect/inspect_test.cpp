#include "inspect/inspect.hpp"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <nlohmann/json.hpp>
#include <span>

#include "base/error.hpp"
#include "config/model_config.hpp"
#include "storage/checkpoint.hpp"
#include "storage/safetensors.hpp"
#include "support/support.hpp"
#include "text/build_data_set.hpp"

namespace sinew {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

json facts(const test::fs::path& path, bool all = false) {
  return json::parse(inspect(path, {.all_tensors = all}).json);
}

std::string complaint(const test::fs::path& path) {
  try {
    inspect(path);
  } catch (const UserError& error) {
    return error.what();
  }
  return "sound";
}

// A small model directory in fp32 zeros, with the list of its tensors to damage.
class Directory {
 public:
  explicit Directory(const std::string& preset) {
    auto config = json::parse(test::slurp(test::source_path("configs/models/" + preset + "/config.json")));
    config.update(json::parse(R"({"vocab_size": 64, "hidden_size": 16, "intermediate_size": 16,
      "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2})"));
    if (config.contains("kv_lora_rank"))
      config.update(json::parse(R"({"kv_lora_rank": 8, "q_lora_rank": 8, "qk_nope_head_dim": 8,
        "qk_rope_head_dim": 4, "v_head_dim": 8, "n_routed_experts": 4, "num_experts_per_tok": 2,
        "moe_intermediate_size": 8, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1})"));
    test::spit(dir_ / "config.json", config.dump());
    for (const auto& spec : tensor_specs(load_model_config(dir_.path()))) {
      tensors.push_back({spec.name, DType::F32, spec.shape});
    }
  }
  void write() {
    SafetensorsWriter writer(dir_ / "model.safetensors", tensors);
    for (const auto& tensor : tensors) {
      const std::vector<float> zeros(static_cast<std::size_t>(tensor.elements()));
      writer.write(zeros.data(), 4 * zeros.size());
    }
    writer.commit();
  }
  TensorInfo& find(const std::string& name) {
    for (auto& tensor : tensors)
      if (tensor.name == name) return tensor;
    throw std::runtime_error("no " + name);
  }
  void drop(const std::string& part) {
    std::erase_if(tensors,
                  [&](const TensorInfo& tensor) { return tensor.name.find(part) != std::string::npos; });
  }
  const test::fs::path& path() const { return dir_.path(); }
  std::vector<TensorInfo> tensors;

 private:
  test::TempDir dir_;
};

TEST(Inspect, PublishedModelsAreCounted) {
  const auto v3 = facts("deepseek-v3");
  EXPECT_EQ(v3["parameters"]["total"], 671'026'419'200);
  EXPECT_EQ(v3["parameters"]["active"], 37'552'297'472);
  EXPECT_EQ(v3["kv_bytes_per_token"]["BF16"], 70272);  // 70.272 KB, table 1 of the ISCA 2025 paper on V3
  EXPECT_EQ(v3["memory_bytes"]["BF16"]["total"], 2 * 671'026'419'200 + 2 * 58 * 256)
      << "the bias stays in fp32";
  EXPECT_EQ(v3["memory_bytes"]["Q4_K"]["bits_per_weight"].get<double>() > 4.5, true);
  EXPECT_EQ(v3["tensor_count"], 46181);
  EXPECT_LT(v3["tensors"].size(), 30u) << "grouped";
  std::int64_t elements = 0, count = 0;
  for (const auto& group : v3["tensors"]) {
    elements += group["elements"].get<std::int64_t>();
    count += group["count"].get<std::int64_t>();
  }
  EXPECT_EQ(elements, 671'026'419'200 + 11'610'068'224);
  EXPECT_EQ(count, 46181);
  const auto text = inspect("deepseek-v3").text;
  EXPECT_THAT(text, AllOf(HasSubstr("671,026,419,200"), HasSubstr("37,552,297,472"),
                          HasSubstr("70,272 bytes a token"),
                          HasSubstr("model.layers.{3..61}.mlp.experts.{0..255}.up_proj.weight")));
}

TEST(Inspect, AllListsEachTensor) {
  const auto lite = facts("mixtral-8x7b", true);
  EXPECT_EQ(lite["tensors"].size(), lite["tensor_count"].get<std::size_t>());
  EXPECT_THAT(inspect("mixtral-8x7b", {.all_tensors = true}).text,
              HasSubstr("model.layers.31.block_sparse_moe.experts.7.w2.weight"));
}

TEST(Inspect, ModelDirectoryIsCheckedAgainstItsConfig) {
  Directory model("deepseek-v2-lite");
  model.write();
  EXPECT_EQ(complaint(model.path()), "sound");
  EXPECT_EQ(facts(model.path())["stored"]["formats"]["F32"]["bytes"],
            4 * count_parameters(load_model_config(model.path())).total);

  Directory missing("deepseek-v2-lite");
  missing.drop("layers.1.mlp.experts.3.up_proj");
  missing.write();
  EXPECT_THAT(complaint(missing.path()), HasSubstr("model.layers.1.mlp.experts.3.up_proj.weight is missing"));

  Directory stranger("deepseek-v2-lite");
  stranger.tensors.push_back({"model.layers.2.input_layernorm.weight", DType::F32, {16}});
  stranger.write();
  EXPECT_THAT(complaint(stranger.path()), HasSubstr("model.layers.2.input_layernorm.weight has no place"));

  Directory reshaped("deepseek-v2-lite");
  reshaped.find("lm_head.weight").shape = {63, 16};
  reshaped.write();
  EXPECT_THAT(complaint(reshaped.path()),
              AllOf(HasSubstr("lm_head.weight"), HasSubstr("[63, 16]"), HasSubstr("[64, 16]")));
}

TEST(Inspect, MtpLayersMayBeLeftOutOnlyWhole) {
  Directory whole("deepseek-v3");
  whole.drop("model.layers.2.");
  whole.write();
  EXPECT_EQ(complaint(whole.path()), "sound");
  EXPECT_THAT(inspect(whole.path()).text, HasSubstr("no multi-token-prediction layers"));

  Directory part("deepseek-v3");
  part.drop("model.layers.2.enorm");
  part.write();
  EXPECT_THAT(complaint(part.path()), HasSubstr("model.layers.2.enorm.weight is missing"));

  Directory copies("deepseek-v3");  // as published: shared copies of embedding and head, scales of FP8
  copies.tensors.push_back({"model.layers.2.embed_tokens.weight", DType::F32, {64, 16}});
  copies.tensors.push_back({"model.layers.2.shared_head.head.weight", DType::F32, {64, 16}});
  copies.tensors.push_back({"model.layers.0.self_attn.o_proj.weight_scale_inv", DType::F32, {1, 1}});
  copies.write();
  EXPECT_EQ(complaint(copies.path()), "sound");
}

TEST(Inspect, WeightsThatAreCutOffOrNotThere) {
  Directory model("llama-124m");
  EXPECT_THAT(inspect(model.path()).text, HasSubstr("only the configuration was checked"));
  model.write();
  EXPECT_EQ(complaint(model.path()), "sound");
  test::fs::resize_file(model.path() / "model.safetensors",
                        test::fs::file_size(model.path() / "model.safetensors") - 1);
  EXPECT_THAT(complaint(model.path()), AllOf(HasSubstr("model.safetensors"), Not(HasSubstr("\n"))));
}

TEST(Inspect, AgreesWithEveryVerdictOfTheReferenceReaders) {
  SINEW_NEED_DATA();
  for (const std::string& format : std::vector<std::string>{"safetensors", "gguf"}) {
    const auto folder = test::data_dir() / "formats" / format;
    const auto files = json::parse(test::slurp(folder / "manifest.json"))["files"];
    ASSERT_GT(files.size(), 10u);
    for (const auto& entry : files) {
      const auto verdict = complaint(folder / entry["file"].get<std::string>());
      EXPECT_THAT(verdict, Not(HasSubstr("\n"))) << entry;
      if (entry["verdict"] == "reject") {
        EXPECT_NE(verdict, "sound") << entry;
      } else if (verdict.find("type") == std::string::npos) {  // llama.cpp knows more tensor types
        EXPECT_EQ(verdict, "sound") << entry;
      }
    }
  }
}

TEST(Inspect, GoldenModelsAreSound) {
  SINEW_NEED_DATA();
  for (const char* name : {"mixtral", "v2_lite_greedy"}) {
    const auto found = facts(test::data_dir() / "golden" / name);
    EXPECT_EQ(found["sound"], true);
    EXPECT_EQ(found["parameters"]["total"], found["stored"]["elements"]) << name;
  }
}

TEST(Inspect, GgufMetadata) {
  SINEW_NEED_DATA();
  const auto found = facts(test::data_dir() / "tokenizers/llama.cpp/ggml-vocab-gpt-2.gguf");
  EXPECT_EQ(found["metadata"]["general.architecture"], "gpt2");
  EXPECT_EQ(found["metadata"]["tokenizer.ggml.tokens"]["items"], 50257);
}

TEST(Inspect, TokenizerAndItsPlaceInAModel) {
  SINEW_NEED_DATA();
  const auto gpt2 = test::data_dir() / "tokenizers/gpt2";
  for (const auto& path : {gpt2, gpt2 / "tokenizer.json"}) {
    const auto found = facts(path);
    EXPECT_EQ(found["tokenizer"]["vocab_size"], 50257);
    EXPECT_EQ(found["tokenizer"]["eos"], 50256);
    EXPECT_THAT(found["tokenizer"]["special"], testing::Contains("<|endoftext|>"));
  }
  Directory model("llama-124m");  // 64 ids
  model.write();
  test::fs::copy_file(gpt2 / "tokenizer.json", model.path() / "tokenizer.json");
  EXPECT_THAT(complaint(model.path()), AllOf(HasSubstr("50257 ids"), HasSubstr("vocab_size is 64")));
}

TEST(Inspect, DataSetIsReadWhole) {
  SINEW_NEED_DATA();
  const test::TempDir dir;
  std::string text;
  for (int i = 0; i < 3000; ++i)
    text += fmt::format("Line {} of a small corpus.\n{}", i, i % 40 == 39 ? "\n" : "");
  test::spit(dir / "text.txt", text);
  DataSetOptions options;
  options.inputs = {dir / "text.txt"};
  options.tokenizer = test::data_dir() / "tokenizers/gpt2/tokenizer.json";
  options.out = dir / "set";
  build_data_set(options);
  const auto found = facts(dir / "set");
  EXPECT_EQ(found["tokenizer"]["vocab_size"], 50257);
  EXPECT_GT(found["data_set"]["splits"]["train"]["tokens"], 1000);
  EXPECT_EQ(facts(dir / "set/dataset.json")["data_set"], found["data_set"]);
  auto shard = test::slurp(dir / "set/train-00000.bin");
  shard[100] ^= 1;
  test::spit(dir / "set/train-00000.bin", shard);
  EXPECT_THAT(complaint(dir / "set"), AllOf(HasSubstr("train-00000.bin"), Not(HasSubstr("\n"))));
  shard.resize(shard.size() - 2);
  test::spit(dir / "set/train-00000.bin", shard);
  EXPECT_THAT(complaint(dir / "set"), HasSubstr("train-00000.bin"));
}

TEST(Inspect, CheckpointIsReadWhole) {
  const test::TempDir dir;
  const Directory model("llama-124m");
  const auto root = dir / "run/checkpoints";
  const auto prepared = begin_checkpoint(root, 7);
  std::vector<std::vector<float>> values;
  std::vector<SliceData> slices;
  for (const auto& tensor : model.tensors)
    values.emplace_back(static_cast<std::size_t>(tensor.elements()), 0.5F);
  for (std::size_t i = 0; i < values.size(); ++i) {
    const auto& tensor = model.tensors[i];
    slices.push_back({"weight/" + tensor.name, DType::F32, tensor.shape,
                      std::vector<std::int64_t>(tensor.shape.size(), 0), tensor.shape,
                      [&values, i] { return std::as_bytes(std::span(values[i])); }});
  }
  TrainingState state;
  state.step = 7;
  state.tokens = 700;
  const auto path =
      commit_checkpoint(prepared, state, {write_checkpoint_part(prepared, "weights", 0, slices)},
                        {{"config.json", test::slurp(model.path() / "config.json")}});
  const auto found = facts(path);
  EXPECT_EQ(found["state"]["step"], 7);
  EXPECT_EQ(found["parameters"]["total"], found["stored"]["elements"]);
  EXPECT_EQ(facts(dir / "run")["checkpoints"][0]["tokens"], 700);
  EXPECT_EQ(facts(root)["checkpoints"].size(), 1u);
  for (const auto& entry : test::fs::directory_iterator(path)) {
    if (entry.path().extension() != ".safetensors") continue;
    auto bytes = test::slurp(entry.path());
    bytes.back() ^= 1;
    test::spit(entry.path(), bytes);
    for (const auto& place : {path, root, dir / "run"})
      EXPECT_THAT(complaint(place), AllOf(HasSubstr(entry.path().filename().string()), Not(HasSubstr("\n"))));
  }
}

TEST(Inspect, Metrics) {
  const test::TempDir dir;
  test::spit(dir / "metrics.jsonl",
             "{\"step\": 1, \"loss\": 5.5}\n{\"step\": 2, \"loss\": 4.5}\n{\"step\": 3, \"loss\": 4.75}\n");
  const auto found = facts(dir / "metrics.jsonl");
  EXPECT_EQ(found["lines"], 3);
  EXPECT_EQ(found["series"]["loss"]["least"], 4.5);
  EXPECT_EQ(found["series"]["loss"]["last"], 4.75);
  test::spit(dir / "cut.jsonl", "{\"step\": 1}\n{\"step\": 2, \"lo");
  EXPECT_THAT(complaint(dir / "cut.jsonl"), HasSubstr("the last line is cut off"));
  test::spit(dir / "bad.jsonl", "{\"step\": 1}\nhello\n");
  EXPECT_THAT(complaint(dir / "bad.jsonl"), HasSubstr("line 2"));
}

TEST(Inspect, OtherFilesAreRefusedInOneLine) {
  const test::TempDir dir;
  test::spit(dir / "empty", "");
  test::spit(dir / "noise.bin", std::string("\x00\x01\x02 noise", 9));
  test::spit(dir / "list.json", "[1, 2, 3]");
  test::spit(dir / "deep.json", std::string(100000, '['));
  test::spit(dir / "fake.gguf", "GGUF");
  for (const char* name : {"empty", "noise.bin", "list.json", "deep.json", "fake.gguf", "none", ""}) {
    EXPECT_THAT(complaint(dir / name), AllOf(HasSubstr(dir.path().string()), Not(HasSubstr("\n")))) << name;
  }
  EXPECT_THAT(complaint("/dev/null"), HasSubstr("neither"));
}

}  // namespace
}  // namespace sinew
