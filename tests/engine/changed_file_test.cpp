// Model files that are cut, written to or removed while a model runs from them: an error that names the file,
// or the right result, never a crash.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <functional>

#include "base/error.hpp"
#include "engine/packing.hpp"
#include "engine/random_models.hpp"
#include "engine/session.hpp"
#include "quant/convert.hpp"

namespace sinew::engine {
namespace {

// A model in its own folder, as a directory of shards or one GGUF file.
class ChangedFile : public ::testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    auto json = test::random_config("deepseek_v3");
    json["num_hidden_layers"] = 4;
    test::write_random_model(dir_ / "hf", json);
    model_ = dir_ / "hf";
    weights_ = dir_ / "hf" / "model.safetensors";
    if (!GetParam()) return;
    ConvertOptions options;
    options.source = model_;
    options.out = dir_ / "m.gguf";
    convert_model(options);
    model_ = weights_ = options.out;
  }

  std::vector<float> logits(Session& session, std::size_t step) const {
    Sequence sequence = session.make_sequence();
    const auto text = test::random_text(3, 48, 96);
    std::vector<float> last;
    for (std::size_t at = 0; at < text.size(); at += step) {
      const auto row =
          session.forward(sequence, std::span(text).subspan(at, std::min(step, text.size() - at)));
      last.assign(row.begin(), row.end());
    }
    return last;
  }

  void expect_error(Session& session, std::size_t step) const {
    try {
      logits(session, step);
      FAIL() << "no error";
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(weights_.filename().string()), std::string::npos)
          << error.what();
    }
  }

  test::TempDir dir_;
  test::fs::path model_, weights_;
};

TEST_P(ChangedFile, CutShort) {
  for (const std::uintmax_t left : {std::uintmax_t{0}, std::uintmax_t{8192}, std::uintmax_t{100000}}) {
    const auto kept = weights_.string() + ".kept";
    test::fs::copy_file(weights_, kept, test::fs::copy_options::overwrite_existing);
    {
      Session session(load_model(model_), {.kv = KvType::f32, .cache_tokens = 64});
      logits(session, 48);
      test::fs::resize_file(weights_, left);
      expect_error(session, 48);
      expect_error(session, 1);
    }
    test::fs::rename(kept, weights_);
  }
}

TEST_P(ChangedFile, WrittenTo) {
  Session session(load_model(model_), {.kv = KvType::f32, .cache_tokens = 64});
  logits(session, 48);
  const auto before = test::fs::last_write_time(weights_);
  std::fstream file(weights_, std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(200000);
  file << "other weights";
  file.close();
  test::fs::last_write_time(weights_, before + std::chrono::seconds(2));
  expect_error(session, 48);
}

// What is mapped lives on: the same numbers as before.
TEST_P(ChangedFile, RemovedOrReplaced) {
  Session session(load_model(model_), {.kv = KvType::f32, .cache_tokens = 64});
  const auto want = logits(session, 1);
  test::spit(dir_ / "other", "not a model");
  test::fs::rename(dir_ / "other", weights_);
  EXPECT_EQ(logits(session, 1), want);
  test::fs::remove(weights_);
  EXPECT_EQ(logits(session, 1), want);
}

// Experts that are read as they are wanted.
TEST_P(ChangedFile, CutShortUnderTheExpertsOnDisk) {
  const auto model = load_model(model_);
  const SwigluWeights& one = model->layers.back().moe->experts[0];
  const std::uint64_t expert = one.gate.bytes() + one.up.bytes() + one.down.bytes() + 3 * 4096;
  model->store = std::make_shared<ExpertStore>(*model, 30 * expert);
  Session session(model, {.kv = KvType::f32, .cache_tokens = 64});
  logits(session, 1);
  test::fs::resize_file(weights_, 8192);
  expect_error(session, 1);
}

INSTANTIATE_TEST_SUITE_P(Files, ChangedFile, ::testing::Values(false, true),
                         [](const auto& test) { return test.param ? "gguf" : "directory"; });

}  // namespace
}  // namespace sinew::engine
