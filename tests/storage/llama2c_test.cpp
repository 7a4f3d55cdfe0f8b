#include "storage/llama2c.hpp"

#include <gtest/gtest.h>

#include <cstring>

#include "base/error.hpp"
#include "storage/safetensors.hpp"
#include "support/support.hpp"

namespace sinew {
namespace {

// A checkpoint of one layer whose weights count up from 0, so that a value tells where it came from.
std::string counting_checkpoint(std::int32_t vocab) {
  const std::int32_t header[7] = {8, 6, 1, 2, 1, vocab, 4};  // width 8, two heads of 4, one key head
  const int words = std::abs(vocab) * 8, layer = 8 + 64 + 32 + 32 + 64 + 8 + 3 * 48, tail = 8 + 4 * 4;
  std::vector<float> weights(static_cast<std::size_t>(words + layer + tail + (vocab < 0 ? words : 0)));
  for (std::size_t i = 0; i < weights.size(); ++i) weights[i] = static_cast<float>(i);
  std::string file(sizeof header + weights.size() * 4, '\0');
  std::memcpy(file.data(), header, sizeof header);
  std::memcpy(file.data() + sizeof header, weights.data(), weights.size() * 4);
  return file;
}

std::vector<float> values(const Safetensors& file, const char* name) {
  const TensorInfo* info = file.find(name);
  EXPECT_NE(info, nullptr) << name;
  std::vector<float> out(static_cast<std::size_t>(info->elements()));
  std::memcpy(out.data(), file.data(*info).data(), out.size() * 4);
  return out;
}

}  // namespace

TEST(Llama2c, EveryWeightComesFromItsPlace) {
  const test::TempDir dir;
  test::spit(dir / "m.bin", counting_checkpoint(-3));
  convert_llama2c(dir / "m.bin", dir.path());
  const ModelConfig config = load_model_config(dir.path());
  EXPECT_EQ(config.model_type, "llama");
  EXPECT_FALSE(config.tie_word_embeddings);
  EXPECT_EQ(config.rms_norm_eps, 1e-5);
  EXPECT_EQ(config.rope_layout, RopeLayout::half);
  EXPECT_EQ(config.max_position_embeddings, 4);
  const Safetensors file(dir / "model.safetensors");
  EXPECT_EQ(file.tensors().size(), tensor_specs(config).size());
  EXPECT_EQ(values(file, "model.embed_tokens.weight")[23], 23);
  EXPECT_EQ(values(file, "model.layers.0.input_layernorm.weight")[0], 24);
  // Rows of a head: pairs (0,1),(2,3) become halves (0,2),(1,3).
  const auto q = values(file, "model.layers.0.self_attn.q_proj.weight");
  const int source_row[8] = {0, 2, 1, 3, 4, 6, 5, 7};
  for (int row = 0; row < 8; ++row) EXPECT_EQ(q[row * 8], 32 + source_row[row] * 8);
  EXPECT_EQ(values(file, "model.layers.0.self_attn.k_proj.weight")[8], 96 + 16);
  EXPECT_EQ(values(file, "model.layers.0.self_attn.v_proj.weight")[8], 128 + 8);
  EXPECT_EQ(values(file, "model.layers.0.self_attn.o_proj.weight")[0], 160);
  EXPECT_EQ(values(file, "model.layers.0.post_attention_layernorm.weight")[0], 224);
  EXPECT_EQ(values(file, "model.layers.0.mlp.gate_proj.weight")[0], 232);
  EXPECT_EQ(values(file, "model.layers.0.mlp.down_proj.weight")[0], 280);
  EXPECT_EQ(values(file, "model.layers.0.mlp.up_proj.weight")[0], 328);
  EXPECT_EQ(values(file, "model.norm.weight")[0], 376);
  EXPECT_EQ(values(file, "lm_head.weight")[0], 400);
}

TEST(Llama2c, RejectsWhatIsNone) {
  const test::TempDir dir;
  const std::string sound = counting_checkpoint(3);
  test::spit(dir / "m.bin", sound);
  EXPECT_TRUE(read_llama2c_config(dir / "m.bin").tie_word_embeddings);
  for (const std::string& bad :
       {std::string(), sound.substr(0, 27), sound.substr(0, sound.size() - 1), sound + "x",
        std::string(28, '\xff'), std::string(28, '\x7f'), std::string(28, '\0')}) {
    test::spit(dir / "m.bin", bad);
    EXPECT_THROW(read_llama2c_config(dir / "m.bin"), UserError);
  }
}

TEST(Llama2c, Stories260K) {
  SINEW_NEED_DATA();
  const auto folder = test::data_dir() / "models" / "stories260K";
  const ModelConfig config = read_llama2c_config(folder / "stories260K.bin");
  EXPECT_EQ(config.hidden_size, 64);
  EXPECT_EQ(config.num_key_value_heads, 4);
  EXPECT_EQ(config.vocab_size, 512);
  const std::string model = convert_llama2c_tokenizer(folder / "tok512.bin", 512);
  EXPECT_EQ(model.substr(0, 13), std::string("\x0a\x0e\x0a\x05<unk>\x15\0\0", 12) + model[12]);
  EXPECT_NE(model.find("\u2581the"), std::string::npos);
  EXPECT_EQ(model.find("\n<s>"), std::string::npos);
  EXPECT_THROW(convert_llama2c_tokenizer(folder / "tok512.bin", 511), UserError);
  EXPECT_THROW(convert_llama2c_tokenizer(folder / "tok512.bin", 513), UserError);
}

}  // namespace sinew
