// Every family's tiny model, for tests that hold for all.
#pragma once

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <string>

#include "base/error.hpp"
#include "base/random.hpp"
#include "model/language_model.hpp"
#include "model/tiny_models.hpp"

namespace sinew::test {

inline ModelConfig tiny_model(const std::string& name) {
  if (name == "llama") return tiny_llama();
  if (name == "llama_tied_llama3_rope") {
    auto c = tiny_llama();
    c.tie_word_embeddings = true;
    c.attention_bias = true;
    c.llama3 = Llama3Scaling{
        .factor = 4, .low_freq_factor = 1, .high_freq_factor = 4, .original_max_position_embeddings = 16};
    return c;
  }
  if (name == "mixtral") return tiny_mixtral();
  if (name == "qwen3_moe") return tiny_qwen3_moe();
  if (name == "deepseek_v2") return tiny_deepseek_v2();
  if (name == "deepseek_v2_lite") {
    auto c = tiny_deepseek_v2();
    c.q_lora_rank.reset();
    c.yarn.reset();
    c.moe.topk_method = TopkMethod::greedy;
    c.moe.n_group = c.moe.topk_group = 1;
    return c;
  }
  return tiny_deepseek_v3();
}

// Values that leave nothing at its initial one or zero: norms around one, biases around zero.
inline void randomize_vectors(const LanguageModel& model) {
  const at::NoGradGuard no_grad;
  for (const auto& parameter : model.parameters()) {
    if (parameter.tensor.dim() != 1) continue;
    const Random random(9, parameter.name);
    const double middle = parameter.name.ends_with("bias") ? 0 : 1;
    for (std::int64_t i = 0; i < parameter.tensor.numel(); ++i) {
      parameter.tensor[i].fill_(middle + 0.3 * random.normal(static_cast<std::uint64_t>(i)));
    }
  }
}

inline std::unique_ptr<LanguageModel> random_model(const ModelConfig& config, at::ScalarType dtype,
                                                   std::uint64_t seed = 1) {
  auto model = std::make_unique<LanguageModel>(config, dtype, at::kCPU, seed);
  randomize_vectors(*model);
  return model;
}

// [rows, tokens] ids that look random.
inline at::Tensor random_tokens(std::int64_t rows, std::int64_t tokens, std::int64_t vocabulary,
                                std::uint64_t seed = 3) {
  const Random random(seed, "tokens");
  auto out = at::empty({rows, tokens}, at::TensorOptions(at::kLong));
  auto* ids = out.data_ptr<std::int64_t>();
  for (std::int64_t i = 0; i < out.numel(); ++i) {
    ids[i] = static_cast<std::int64_t>(
        random.below(static_cast<std::uint64_t>(i), static_cast<std::uint64_t>(vocabulary)));
  }
  return out;
}

// The next token of every position; -100 at the end.
inline at::Tensor next_tokens(const at::Tensor& tokens) {
  auto targets = at::full_like(tokens, -100);
  targets.narrow(1, 0, tokens.size(1) - 1).copy_(tokens.narrow(1, 1, tokens.size(1) - 1));
  return targets;
}

inline std::map<std::string, at::Tensor> gradients(const LanguageModel& model) {
  std::map<std::string, at::Tensor> out;
  for (const auto& parameter : model.parameters()) {
    if (!parameter.buffer) out[parameter.name] = parameter.tensor.grad().clone();
    parameter.tensor.mutable_grad() = at::Tensor();
  }
  return out;
}

// What the UserError of `action` says; it must be one line.
inline std::string complaint(const std::function<void()>& action) {
  try {
    action();
  } catch (const UserError& error) {
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
    return error.what();
  }
  return "no UserError";
}

inline auto all_families() {
  return ::testing::Values("llama", "llama_tied_llama3_rope", "mixtral", "qwen3_moe", "deepseek_v2",
                           "deepseek_v2_lite", "deepseek_v3");
}
inline constexpr auto family_name = [](const auto& test) { return std::string(test.param); };

}  // namespace sinew::test
