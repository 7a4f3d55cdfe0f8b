// Experts from disk give what experts in memory give.
#include "engine/expert_store.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "base/error.hpp"
#include "engine/packing.hpp"
#include "engine/random_models.hpp"
#include "engine/session.hpp"
#include "quant/convert.hpp"
#include "quant/quantize_model.hpp"

namespace sinew::engine {
namespace {

std::vector<float> logits_of(const std::shared_ptr<Model>& model, const std::vector<TokenId>& text,
                             std::size_t step) {
  Session session(model, {.kv = KvType::f32, .cache_tokens = 128});
  Sequence sequence = session.make_sequence();
  std::vector<float> all;
  for (std::size_t at = 0; at < text.size(); at += step) {
    const Input input{&sequence, std::span(text).subspan(at, std::min(step, text.size() - at)), Logits::all};
    session.forward({&input, 1}, [&](std::size_t, index_t, std::span<const float> logits) {
      all.insert(all.end(), logits.begin(), logits.end());
    });
  }
  return all;
}

// Bytes of one expert in memory.
std::uint64_t up_to_page(const Model& model) {
  for (const Layer& layer : model.layers)
    if (layer.moe) {
      const SwigluWeights& w = layer.moe->experts[0];
      return (w.gate.bytes() + w.up.bytes() + w.down.bytes() + 4095) / 4096 * 4096;
    }
  return 0;
}

TEST(ExpertStore, SameLogitsWithAFractionOfTheExpertsInMemory) {
  for (const char* family : {"qwen3_moe", "deepseek_v3"}) {
    const test::TempDir dir;
    auto json = test::random_config(family);
    json["num_hidden_layers"] = 5;
    test::write_random_model(dir / "hf", json);
    ConvertOptions options;
    options.source = dir / "hf";
    options.out = dir / "m.gguf";
    convert_model(options);
    const auto text = test::random_text(8, 70, 96);
    for (const fs::path& path : {dir / "hf", options.out}) {
      const auto mapped = load_model(path);
      const auto whole = logits_of(mapped, text, 1), prompt = logits_of(mapped, text, 35);
      const std::uint64_t expert = up_to_page(*mapped);
      // Staging, and 6 of the 32 or 40 experts: less than one layer's.
      const auto model = load_model(path);
      model->store = std::make_shared<ExpertStore>(*model, 24 * (expert + 3 * 4096) + 6 * expert + 4096);
      EXPECT_GE(model->store->capacity(), 4);
      EXPECT_LT(model->store->capacity(), 8);
      EXPECT_EQ(logits_of(model, text, 1), whole) << path;
      const ExpertCounts decode = model->store->counts();
      EXPECT_GT(decode.hits + decode.foreseen, 0);
      EXPECT_GT(decode.misses + decode.prefetched, 0);
      EXPECT_EQ(logits_of(model, text, 35), prompt) << path;
      EXPECT_GE(model->store->counts().bytes_read, static_cast<std::uint64_t>(decode.misses) * 24576);
    }
  }
}

// Quantized experts are repacked as they come from disk.
TEST(ExpertStore, SameLogitsOfQuantizedExperts) {
  const test::TempDir dir;
  auto json = test::random_config("qwen3_moe");
  json["num_hidden_layers"] = 5;
  test::write_random_model(dir / "hf", json);
  QuantizeOptions options;
  options.source = dir / "hf";
  options.out = dir / "m.gguf";
  options.type = "Q8_0";
  quantize_model(options);
  const auto text = test::random_text(8, 40, 96);
  const auto mapped = load_model(options.out), model = load_model(options.out);
  pack_model(*mapped);
  model->store = std::make_shared<ExpertStore>(*model, 24 * 6 * 4096 + 12 * 8192);
  EXPECT_LT(model->store->capacity(), 32);
  pack_model(*model);
  EXPECT_EQ(model->layers[0].moe->experts[0].gate.packed, nullptr) << "those stay on disk";
  EXPECT_EQ(logits_of(model, text, 1), logits_of(mapped, text, 1));
  EXPECT_EQ(logits_of(model, text, 20), logits_of(mapped, text, 20));
  EXPECT_GT(model->store->counts().misses, 0);
}

TEST(ExpertStore, EverythingFitsEverythingHits) {
  const test::TempDir dir;
  test::write_random_model(dir / "hf", test::random_config("qwen3_moe"));
  const auto model = load_model(dir / "hf");
  model->store = std::make_shared<ExpertStore>(*model, std::uint64_t{64} << 20);
  const auto text = test::random_text(8, 50, 96);
  logits_of(model, text, 1);
  const std::int64_t read = model->store->counts().misses + model->store->counts().prefetched;
  EXPECT_LE(read, 16);  // two layers of eight
  logits_of(model, text, 1);
  EXPECT_EQ(model->store->counts().misses + model->store->counts().prefetched, read);
  EXPECT_GT(model->store->counts().hit_rate(), 0.8);
}

TEST(ExpertStore, SaysHowMuchIsNeeded) {
  const test::TempDir dir;
  test::write_random_model(dir / "hf", test::random_config("qwen3_moe"));
  test::write_random_model(dir / "dense", test::random_config("llama"));
  const auto model = load_model(dir / "hf");
  EXPECT_THROW(ExpertStore(*model, 1000), UserError);
  EXPECT_THROW(stream_experts(*model, 1000), UserError);
  EXPECT_THROW(stream_experts(*load_model(dir / "dense"), 1000), UserError);
  stream_experts(*model, std::uint64_t{1} << 30);
  EXPECT_EQ(model->store, nullptr) << "all of it fits";
}

}  // namespace
}  // namespace sinew::engine
