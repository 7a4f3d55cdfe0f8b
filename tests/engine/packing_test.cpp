#include "engine/packing.hpp"
#include "engine/pack_file.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "base/error.hpp"
#include "engine/random_model.hpp"
#include "engine/session.hpp"
#include "kernels/quant_tables.hpp"
#include "support/support.hpp"

namespace sinew::engine {
namespace {

ModelConfig small_config() {
  return parse_model_config(R"({"architectures": ["DeepseekV2ForCausalLM"], "model_type": "deepseek_v2",
    "vocab_size": 300, "hidden_size": 256, "intermediate_size": 512, "moe_intermediate_size": 96,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 4, "n_shared_experts": 2,
    "n_routed_experts": 8, "num_experts_per_tok": 2, "moe_layer_freq": 1, "first_k_dense_replace": 1,
    "kv_lora_rank": 64, "q_lora_rank": null, "qk_rope_head_dim": 16, "qk_nope_head_dim": 32, "v_head_dim": 32,
    "topk_method": "greedy", "n_group": 1, "topk_group": 1, "norm_topk_prob": false, "routed_scaling_factor": 1.0,
    "scoring_func": "softmax", "hidden_act": "silu", "max_position_embeddings": 512, "rms_norm_eps": 1e-06,
    "rope_theta": 10000, "attention_bias": false, "tie_word_embeddings": false})");
}

std::vector<float> logits_of(const std::shared_ptr<Model>& model, const std::vector<TokenId>& ids,
                             bool one_by_one) {
  Session session(model, {.kv = KvType::f32, .cache_tokens = 128});
  Sequence sequence = session.make_sequence();
  std::span<const float> last;
  if (!one_by_one) {
    last = session.forward(sequence, ids);
    return {last.begin(), last.end()};
  }
  for (const TokenId id : ids) last = session.forward(sequence, std::vector<TokenId>{id});
  return {last.begin(), last.end()};
}

double relative_error(const std::vector<float>& got, const std::vector<float>& want) {
  double difference = 0, all = 0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    difference += std::pow(static_cast<double>(got[i]) - static_cast<double>(want[i]), 2);
    all += std::pow(static_cast<double>(want[i]), 2);
  }
  return std::sqrt(difference / all);
}

}  // namespace

TEST(Packing, PackedModelGivesTheLogitsOfItsFile) {
  if (quant_kernels(active_isa()) == nullptr)
    GTEST_SKIP() << "no integer products with " << isa_name(active_isa());
  const test::TempDir folder;
  const auto file = folder.path() / "random.gguf";
  write_random_gguf(small_config(), "Q4_K_M", 3, file);
  const auto plain = load_model(file), packed_model = load_model(file);
  const std::size_t bytes = pack_model(*packed_model);
  EXPECT_GT(bytes, packed_model->weight_bytes / 2);
  EXPECT_LT(bytes, packed_model->weight_bytes + (1 << 16));
  EXPECT_NE(packed(packed_model->layers[1].moe->experts[3].down), nullptr);
  std::vector<TokenId> ids;
  for (int i = 0; i < 40; ++i) ids.push_back(static_cast<TokenId>(i * 7 % 300));
  const auto want = logits_of(plain, ids, false);
  for (const float x : want) ASSERT_TRUE(std::isfinite(x));
  // Activations in 8 bits: a percent in every product. Routing may then choose otherwise for a token.
  EXPECT_LT(relative_error(logits_of(packed_model, ids, false), want), 0.08);
  EXPECT_LT(relative_error(logits_of(packed_model, ids, true), want), 0.08);
}

// Written once, mapped afterwards; anything that does not belong to the model is written anew.
TEST(PackFile, WrittenOnceMappedAfterwardsAndDistrusted) {
  if (quant_kernels(active_isa()) == nullptr) GTEST_SKIP() << "nothing is packed";
  const test::TempDir folder;
  const auto file = folder.path() / "m.gguf", packed_file = folder.path() / "m.gguf.sinew-packed";
  write_random_gguf(small_config(), "Q4_K_M", 3, file);
  const std::vector<TokenId> ids{1, 2, 3, 4, 5};
  const PackOptions keep{.file = PackFile::write, .least = 0}, look{.file = PackFile::read, .least = 0};
  const auto logits = [&](const PackOptions& options) {
    const auto model = load_model(file);
    EXPECT_GT(pack_model(*model, options), 0U);
    return logits_of(model, ids, false);
  };
  const auto mapped = [&](const PackOptions& options) {  // whether the weights lie in the file
    const auto model = load_model(file);
    pack_model(*model, options);
    return test::slurp("/proc/self/maps").find(packed_file.string()) != std::string::npos;
  };
  const auto want = logits({});
  EXPECT_FALSE(std::filesystem::exists(packed_file));
  EXPECT_EQ(logits(look), want);
  EXPECT_FALSE(std::filesystem::exists(packed_file));
  EXPECT_EQ(logits(keep), want);
  ASSERT_TRUE(mapped(keep));
  const auto written = std::filesystem::last_write_time(packed_file);
  EXPECT_EQ(logits(keep), want);
  EXPECT_EQ(logits(look), want);
  EXPECT_EQ(std::filesystem::last_write_time(packed_file), written);
  const std::string whole = test::slurp(packed_file);
  for (const std::size_t at : {std::size_t{0}, whole.size() / 2, whole.size() - 60, whole.size() - 41,
                               whole.size() - 39, whole.size() - 20, whole.size() - 1}) {
    std::string broken = whole;
    broken[at] = static_cast<char>(broken[at] ^ 1);
    test::spit(packed_file, broken);
    EXPECT_EQ(logits(look), want) << "byte " << at;  // passed over
    EXPECT_EQ(test::slurp(packed_file), broken);
    EXPECT_EQ(logits(keep), want) << "byte " << at;  // and mended
    EXPECT_EQ(test::slurp(packed_file), whole);
  }
  for (const std::size_t length : {std::size_t{0}, std::size_t{10}, whole.size() - 1}) {
    test::spit(packed_file, whole.substr(0, length));
    EXPECT_EQ(logits(keep), want);
    EXPECT_EQ(test::slurp(packed_file), whole);
  }
  // Another model under the same name, and the same bytes written later.
  write_random_gguf(small_config(), "Q4_K_M", 4, file);
  EXPECT_NE(logits(keep), want);
  EXPECT_NE(test::slurp(packed_file), whole);
  EXPECT_EQ(logits(keep), logits({}));
  write_random_gguf(small_config(), "Q4_K_M", 3, file);
  EXPECT_EQ(logits(keep), want);
}

TEST(PackFile, PiecesOfAnySize) {
  const test::TempDir folder;
  const std::size_t bytes = (std::size_t{9} << 20) + 64;  // more than two of its chunks
  const PackPlace place{folder.path() / "packed", bytes, {1, 2}};
  std::vector<std::byte> data(bytes);
  for (std::size_t i = 0; i < bytes; ++i) data[i] = static_cast<std::byte>(i * 31 + i / 4093);
  std::string first;
  for (const std::size_t piece : {bytes, std::size_t{1} << 20, std::size_t{3} << 20, std::size_t{70001}}) {
    PackFileWriter writer(place);
    for (std::size_t at = 0; at < bytes; at += piece)
      writer.write(data.data() + at, std::min(piece, bytes - at));
    writer.commit();
    const auto file = open_pack_file(place);
    ASSERT_NE(file, nullptr) << piece;
    EXPECT_EQ(std::memcmp(file->data(), data.data(), bytes), 0) << piece;
    const std::string whole = test::slurp(place.path);
    if (first.empty()) first = whole;
    EXPECT_TRUE(whole == first) << piece;
  }
}

TEST(PackFile, NothingOnDiskIsNoHindrance) {
  if (quant_kernels(active_isa()) == nullptr) GTEST_SKIP() << "nothing is packed";
  const test::TempDir folder;
  const auto file = folder.path() / "m.gguf", packed_file = folder.path() / "m.gguf.sinew-packed";
  write_random_gguf(small_config(), "Q4_K_M", 3, file);
  std::filesystem::create_directory(packed_file);  // no file can be put there, not even by root
  test::spit(packed_file / "x", "");
  const auto model = load_model(file);
  EXPECT_GT(pack_model(*model, {.file = PackFile::write, .least = 0}), 0U);
  for (const float x : logits_of(model, {1, 2, 3}, false)) ASSERT_TRUE(std::isfinite(x));
  for (const auto& entry : std::filesystem::directory_iterator(folder.path()))
    EXPECT_TRUE(entry.path() == file || entry.path() == packed_file) << entry.path();
}

// A packed file that is cut short while it is in use: an error, not a crash.
TEST(PackFile, CutShortWhileInUse) {
  if (quant_kernels(active_isa()) == nullptr) GTEST_SKIP() << "nothing is packed";
  const test::TempDir folder;
  const auto file = folder.path() / "m.gguf";
  write_random_gguf(small_config(), "Q4_K_M", 3, file);
  const auto model = load_model(file);
  pack_model(*model, {.file = PackFile::write, .least = 0});
  logits_of(model, {1, 2, 3}, false);
  std::filesystem::resize_file(file.string() + ".sinew-packed", 4096);
  try {
    logits_of(model, {1, 2, 3}, false);
    FAIL() << "no error";
  } catch (const IoError& error) {
    EXPECT_NE(std::string(error.what()).find("m.gguf.sinew-packed"), std::string::npos) << error.what();
  }
}

TEST(Packing, RandomModelsRun) {
  const auto model = random_model(small_config(), "Q4_K_M", 5);
  for (const float x : logits_of(model, {1, 2, 3}, false)) ASSERT_TRUE(std::isfinite(x));
}

}  // namespace sinew::engine
