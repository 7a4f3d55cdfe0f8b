#include "quant/convert.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "base/error.hpp"
#include "base/random.hpp"
#include "quant/gguf_config.hpp"
#include "quant/gguf_names.hpp"
#include "storage/gguf.hpp"
#include "storage/gguf_writer.hpp"
#include "storage/safetensors.hpp"
#include "support/support.hpp"

namespace sinew {
namespace {

void convert(const fs::path& from, const fs::path& to, GgufOptions gguf = {}) {
  ConvertOptions options;
  options.source = from;
  options.out = to;
  options.gguf = gguf;
  convert_model(options);
}

// A directory with random weights for this config, every tensor in `dtype`.
void write_random_model(const fs::path& directory, const std::string& config_json, DType dtype) {
  fs::create_directory(directory);
  test::spit(directory / "config.json", config_json);
  const ModelConfig config = load_model_config(directory);
  std::vector<TensorInfo> infos;
  for (const TensorSpec& spec : tensor_specs(config))
    infos.push_back({.name = spec.name, .dtype = spec.fp32 ? DType::F32 : dtype, .shape = spec.shape});
  SafetensorsWriter writer(directory / "model.safetensors", infos);
  for (const TensorInfo& info : infos) {
    std::vector<float> values(static_cast<std::size_t>(info.elements()));
    Random(7, info.name).fill_normal(values.data(), 0, values.size(), 0, 1);
    std::vector<std::byte> bytes(values.size() * dtype_size(info.dtype));
    from_float(info.dtype, values.data(), bytes.data(), values.size());
    writer.write(bytes.data(), bytes.size());
  }
  writer.commit();
}

void expect_same_weights(const fs::path& a, const fs::path& b) {
  const ModelWeights first(a), second(b);
  ASSERT_EQ(first.tensors().size(), second.tensors().size());
  for (const TensorInfo& info : first.tensors()) {
    const TensorInfo* other = second.find(info.name);
    ASSERT_NE(other, nullptr) << info.name;
    EXPECT_EQ(other->dtype, info.dtype) << info.name;
    EXPECT_EQ(other->shape, info.shape) << info.name;
    const auto x = first.data(info.name), y = second.data(info.name);
    ASSERT_EQ(x.size(), y.size());
    EXPECT_EQ(std::memcmp(x.data(), y.data(), x.size()), 0) << info.name;
  }
}

const char* const kTinyV3 =
    R"({"model_type":"deepseek_v3","vocab_size":40,"hidden_size":32,"intermediate_size":48,
  "num_hidden_layers":3,"num_attention_heads":2,"num_key_value_heads":2,"max_position_embeddings":64,"q_lora_rank":16,
  "kv_lora_rank":24,"qk_nope_head_dim":8,"qk_rope_head_dim":4,"v_head_dim":6,"n_routed_experts":4,"num_experts_per_tok":2,
  "n_shared_experts":1,"moe_intermediate_size":16,"first_k_dense_replace":1,"n_group":2,"topk_group":1,
  "norm_topk_prob":true,"routed_scaling_factor":2.5,"scoring_func":"sigmoid","topk_method":"noaux_tc",
  "num_nextn_predict_layers":1,"rope_theta":10000,"rms_norm_eps":1e-6,"torch_dtype":"bfloat16",
  "rope_scaling":{"type":"yarn","factor":4,"mscale":1.0,"mscale_all_dim":1.0,"original_max_position_embeddings":16}})";

}  // namespace

TEST(Convert, GoldensSurviveTheTripThroughGguf) {
  SINEW_NEED_DATA();
  for (const char* name : {"mixtral", "v2_lite_greedy"}) {
    const test::TempDir dir;
    const auto golden = test::data_dir() / "golden" / name;
    convert(golden, dir / "m.gguf");
    convert(dir / "m.gguf", dir / "hf");
    expect_same_weights(golden, dir / "hf");
    ModelConfig before = load_model_config(golden), after = load_model_config(dir / "hf");
    after.dtype = before.dtype;
    EXPECT_EQ(before, after) << name;
  }
}

TEST(Convert, DeepseekV3KeepsEveryTensorWithMtpAndBothLayoutsOfKvB) {
  const test::TempDir dir;
  write_random_model(dir / "v3", kTinyV3, DType::BF16);
  for (const bool joined : {false, true}) {
    const auto file = dir / fmt::format("{}.gguf", joined), back = dir / fmt::format("back{}", joined);
    convert(dir / "v3", file, {.joined_kv_b = joined, .mtp = true});
    EXPECT_EQ(Gguf(file).find_tensor("blk.0.attn_kv_b.weight") != nullptr, joined);
    EXPECT_NE(Gguf(file).find_tensor("blk.3.nextn.eh_proj.weight"), nullptr);
    convert(file, back);
    expect_same_weights(dir / "v3", back);
    EXPECT_EQ(load_model_config(dir / "v3"), load_model_config(back));
  }
}

TEST(Convert, SplitKvBIsLaidOutAsLlamaCppReadsIt) {
  const test::TempDir dir;
  write_random_model(dir / "v3", kTinyV3, DType::F32);
  convert(dir / "v3", dir / "m.gguf");
  const Gguf file(dir / "m.gguf");
  const ModelWeights weights(dir / "v3");
  std::vector<float> kv_b(2 * 14 * 24), k_b(8 * 24 * 2), v_b(24 * 6 * 2);
  std::memcpy(kv_b.data(), weights.data("model.layers.1.self_attn.kv_b_proj.weight").data(), kv_b.size() * 4);
  std::memcpy(k_b.data(), file.data(*file.find_tensor("blk.1.attn_k_b.weight")).data(), k_b.size() * 4);
  std::memcpy(v_b.data(), file.data(*file.find_tensor("blk.1.attn_v_b.weight")).data(), v_b.size() * 4);
  EXPECT_EQ(file.find_tensor("blk.1.attn_k_b.weight")->shape, (std::vector<std::int64_t>{8, 24, 2}));
  EXPECT_EQ(file.find_tensor("blk.1.attn_v_b.weight")->shape, (std::vector<std::int64_t>{24, 6, 2}));
  for (int h = 0; h < 2; ++h) {
    for (int c = 0; c < 24; ++c) {
      for (int i = 0; i < 8; ++i) ASSERT_EQ(k_b[(h * 24 + c) * 8 + i], kv_b[(h * 14 + i) * 24 + c]);
      for (int i = 0; i < 6; ++i) ASSERT_EQ(v_b[(h * 6 + i) * 24 + c], kv_b[(h * 14 + 8 + i) * 24 + c]);
    }
  }
  EXPECT_EQ(file.find_tensor("blk.3.attn_norm.weight"), nullptr) << "MTP layers are left out by default";
  EXPECT_EQ(file.find_tensor("blk.1.ffn_gate_exps.weight")->shape, (std::vector<std::int64_t>{32, 16, 4}));
  EXPECT_EQ(file.find_tensor("blk.1.exp_probs_b.bias")->type, 0u);
}

// llama2.c stores the rotated rows as llama.cpp wants them, so the trip through the HF layout must give them
// back.
TEST(Convert, LlamaRowsArePermutedAsLlamaCppWantsThem) {
  SINEW_NEED_DATA();
  const test::TempDir dir;
  const auto source = test::data_dir() / "models" / "stories260K" / "stories260K.bin";
  convert(source, dir / "hf");
  convert(dir / "hf", dir / "m.gguf");
  const Gguf file(dir / "m.gguf");
  const std::string original = test::slurp(source);
  const std::size_t q = 28 + 4 * (512 * 64 + 5 * 64), k = q + 4 * 5 * 64 * 64;  // wq and wk of layer 0
  const auto same = [&](const char* name, std::size_t offset) {
    const auto data = file.data(*file.find_tensor(name));
    return std::memcmp(data.data(), original.data() + offset, data.size()) == 0;
  };
  EXPECT_TRUE(same("blk.0.attn_q.weight", q));
  EXPECT_TRUE(same("blk.0.attn_k.weight", k));
  EXPECT_EQ(file.get_string("tokenizer.ggml.model"), "llama");
  EXPECT_EQ(file.get_array("tokenizer.ggml.tokens").strings[259], "\u2581t");
  EXPECT_EQ(file.get_int("tokenizer.ggml.bos_token_id"), 1);
  convert(dir / "m.gguf", dir / "back");
  expect_same_weights(dir / "hf", dir / "back");
  for (const char* name : {"tokenizer.model", "tokenizer_config.json"})
    EXPECT_EQ(test::slurp(dir / "hf" / name), test::slurp(dir / "back" / name));
}

// Without our own key, the metadata that llama.cpp's files have must say the same network.
TEST(Convert, ConfigsAreReadFromLlamaCppsKeysAlone) {
  for (const auto& entry : fs::directory_iterator(test::source_path("configs/models"))) {
    ModelConfig config = load_model_config(entry.path());
    config.num_nextn_predict_layers = 0;
    const std::string name = entry.path().filename().string();
    for (const bool joined : {false, true}) {
      const test::TempDir dir;
      GgufMetadata metadata = gguf_metadata(config, name, {.joined_kv_b = joined});
      metadata.erase("sinew.config");
      std::vector<GgufTensor> tensors;
      if (config.llama3) tensors.push_back({.name = "rope_freqs.weight", .shape = {config.rope_dim() / 2}});
      GgufWriter writer(dir / "m.gguf", metadata, tensors);
      const std::vector<float> factors = config.llama3 ? llama3_rope_factors(config) : std::vector<float>();
      if (config.llama3) writer.write(factors.data(), factors.size() * 4);
      writer.commit();
      ModelConfig read = gguf_model_config(Gguf(dir / "m.gguf"));
      // What has no key there, and no effect on the outputs or is told by the tensors and the tokenizer.
      read.dtype = config.dtype;
      read.initializer_range = config.initializer_range;
      read.tie_word_embeddings = config.tie_word_embeddings;
      read.bos_token_ids = config.bos_token_ids;
      read.eos_token_ids = config.eos_token_ids;
      read.moe.aux_loss_alpha = config.moe.aux_loss_alpha;
      read.moe.seq_aux = config.moe.seq_aux;
      if (read.yarn && config.yarn) read.yarn->mscale = config.yarn->mscale;  // only mscale_all_dim is kept
      if (config.moe.topk_method == TopkMethod::greedy) {
        read.moe.n_group = config.moe.n_group;
        read.moe.topk_group = config.moe.topk_group;
      }
      EXPECT_EQ(write_model_config(read), write_model_config(config)) << name;
    }
  }
}

TEST(Convert, BlockScaledFp8IsMultipliedOut) {
  const test::TempDir dir;
  const std::vector<std::int64_t> shape{130, 150};  // the last block row and column are cut
  const std::vector<TensorInfo> infos{{.name = "w", .dtype = DType::F8_E4M3, .shape = shape},
                                      {.name = "w_scale_inv", .dtype = DType::F32, .shape = {2, 2}}};
  SafetensorsWriter writer(dir / "model.safetensors", infos);
  std::vector<std::uint8_t> weights(130 * 150, 0x38);  // 1.0
  weights[0] = 0xC0;                                   // -2.0
  const float scales[4] = {0.5F, 2, 4, 8};
  writer.write(weights.data(), weights.size());
  writer.write(scales, sizeof scales);
  writer.commit();
  const ModelWeights model(dir.path());
  const RowSource rows = hf_rows(model, "w", shape);
  std::vector<float> out(130 * 150);
  rows.read(0, 130, out.data());
  EXPECT_EQ(out[0], -1);
  EXPECT_EQ(out[1], 0.5F);
  EXPECT_EQ(out[128], 2);
  EXPECT_EQ(out[127 * 150], 0.5F);
  EXPECT_EQ(out[128 * 150], 4);
  EXPECT_EQ(out[129 * 150 + 149], 8);
  EXPECT_THROW(hf_rows(model, "w", {150, 130}), UserError);
  EXPECT_THROW(hf_rows(model, "v", shape), UserError);
}

TEST(Convert, ShardsAreIndexedAndReadBack) {
  const test::TempDir dir;
  write_random_model(dir / "v3", kTinyV3, DType::BF16);
  convert(dir / "v3", dir / "m.gguf", {.mtp = true});
  ConvertOptions options;
  options.source = dir / "m.gguf";
  options.out = dir / "sharded";
  options.max_shard_bytes = 20000;
  convert_model(options);
  EXPECT_GT(ModelWeights(dir / "sharded").files().size(), 3u);
  expect_same_weights(dir / "v3", dir / "sharded");
}

TEST(Convert, WhatIsMissingIsNamed) {
  const test::TempDir dir;
  write_random_model(dir / "v3", kTinyV3, DType::BF16);
  GgufWriter(dir / "empty.gguf", gguf_metadata(load_model_config(dir / "v3"), "x"), {}).commit();
  try {
    convert(dir / "empty.gguf", dir / "out");
    FAIL();
  } catch (const UserError& error) {
    EXPECT_NE(std::string(error.what()).find("token_embd.weight"), std::string::npos) << error.what();
  }
  EXPECT_FALSE(fs::exists(dir / "out"));
}

}  // namespace sinew
