// One mistake at a time in a good config.json: each gives one line that names file and field.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "config/model_config.hpp"
#include "support/support.hpp"

namespace sinew {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

json preset(const std::string& name) {
  return json::parse(test::slurp(test::source_path("configs/models/" + name + "/config.json")));
}

std::string message(const std::string& text) {
  try {
    parse_model_config(text, "dir/config.json");
  } catch (const UserError& error) {
    return error.what();
  }
  return "accepted";
}

// `patch` is a JSON merge patch; null removes a key (RFC 7396).
std::string message(const std::string& name, const std::string& patch) {
  json config = preset(name);
  config.merge_patch(json::parse(patch));
  return message(config.dump());
}

struct Mistake {
  const char *preset, *patch, *field, *what;
};

class Mistakes : public testing::TestWithParam<Mistake> {};

TEST_P(Mistakes, GiveOneLineNamingTheField) {
  const Mistake& m = GetParam();
  const auto line = message(m.preset, m.patch);
  EXPECT_THAT(line, AllOf(HasSubstr("dir/config.json: "), HasSubstr(m.field), HasSubstr(m.what),
                          Not(HasSubstr("\n"))));
}

INSTANTIATE_TEST_SUITE_P(
    Values, Mistakes,
    testing::Values(
        Mistake{"deepseek-v2", R"({"model_type": "gpt2"})", "model_type", "\"gpt2\""},
        Mistake{"deepseek-v2", R"({"model_type": null})", "model_type", "missing"},
        Mistake{"deepseek-v2", R"({"model_type": 3})", "model_type", "must be a string"},
        Mistake{"deepseek-v2", R"({"hidden_size": null})", "hidden_size", "missing"},
        Mistake{"deepseek-v2", R"({"hidden_size": null, "hiden_size": 5120})", "hidden_size",
                "\"hiden_size\""},
        Mistake{"deepseek-v2", R"({"hidden_size": "5120"})", "hidden_size", "whole number"},
        Mistake{"deepseek-v2", R"({"hidden_size": 5120.5})", "hidden_size", "whole number"},
        Mistake{"deepseek-v2", R"({"hidden_size": -5120})", "hidden_size", "-5120"},
        Mistake{"deepseek-v2", R"({"hidden_size": 0})", "hidden_size", "from 1"},
        Mistake{"deepseek-v2", R"({"hidden_size": 18446744073709551615})", "hidden_size",
                "18446744073709551615"},
        Mistake{"deepseek-v2", R"({"hidden_size": 1e30})", "hidden_size", "whole number"},
        Mistake{"deepseek-v2", R"({"vocab_size": true})", "vocab_size", "whole number"},
        Mistake{"deepseek-v2", R"({"num_hidden_layers": [60]})", "num_hidden_layers", "a list"},
        Mistake{"deepseek-v2", R"({"qk_rope_head_dim": 63})", "qk_rope_head_dim", "even"},
        Mistake{"deepseek-v2", R"({"q_lora_rank": "big"})", "q_lora_rank", "whole number"},
        Mistake{"deepseek-v2", R"({"qk_head_dim": 100})", "qk_head_dim", "192"},
        Mistake{"deepseek-v2", R"({"num_key_value_heads": 8})", "num_key_value_heads", "num_attention_heads"},
        Mistake{"deepseek-v2", R"({"first_k_dense_replace": 61})", "first_k_dense_replace",
                "num_hidden_layers"},
        Mistake{"deepseek-v2", R"({"num_experts_per_tok": 161})", "num_experts_per_tok", "160"},
        Mistake{"deepseek-v2", R"({"num_experts_per_tok": 61})", "num_experts_per_tok", "60 experts"},
        Mistake{"deepseek-v2", R"({"n_group": 7})", "n_group", "divide"},
        Mistake{"deepseek-v2", R"({"topk_group": 9})", "topk_group", "n_group"},
        Mistake{"deepseek-v2", R"({"topk_method": "random"})", "topk_method", "random"},
        Mistake{"deepseek-v2", R"({"scoring_func": "sigmoid"})", "scoring_func", "softmax"},
        Mistake{"deepseek-v2", R"({"moe_layer_freq": 0})", "moe_layer_freq", "from 1"},
        Mistake{"deepseek-v2", R"({"hidden_act": "gelu"})", "hidden_act", "gelu"},
        Mistake{"deepseek-v2", R"({"attention_bias": true})", "attention_bias", "latent"},
        Mistake{"deepseek-v2", R"({"rope_scaling": {"type": "dynamic"}})", "rope_scaling.type", "dynamic"},
        Mistake{"deepseek-v2", R"({"rope_scaling": 4})", "rope_scaling", "object"},
        Mistake{"deepseek-v2", R"({"rope_scaling": {"factor": null}})", "rope_scaling.factor", "missing"},
        Mistake{"deepseek-v2", R"({"rope_scaling": {"factor": null, "factr": 4}})", "rope_scaling.factor",
                "\"factr\""},
        Mistake{"deepseek-v2", R"({"rope_scaling": {"beta_fast": 0.5}})", "rope_scaling.beta_fast",
                "beta_slow"},
        Mistake{"deepseek-v2", R"({"rope_scaling": {"rope_type": "linear"}})", "rope_scaling.type",
                "rope_type"},
        Mistake{"deepseek-v2", R"({"rope_parameters": {"rope_theta": 5000}})", "rope_theta", "5000"},
        Mistake{"deepseek-v2", R"({"rope_parameters": {"rope_type": "default"}})", "rope_scaling",
                "contradict"},
        Mistake{"deepseek-v2", R"({"rope_theta": 0})", "rope_theta", "not 0"},
        Mistake{"deepseek-v2", R"({"rms_norm_eps": "small"})", "rms_norm_eps", "must be a number"},
        Mistake{"deepseek-v2", R"({"dtype": "float32"})", "torch_dtype", "contradict"},
        Mistake{"deepseek-v2",
                R"({"vocab_size": 16777216, "hidden_size": 1048576, "intermediate_size": 16777216,
                                   "moe_intermediate_size": 16777216, "num_hidden_layers": 20000})",
                "sizes", "parameters"},
        Mistake{"deepseek-v3", R"({"n_group": 256, "topk_group": 256})", "n_group", "two best"},
        Mistake{"deepseek-v3", R"({"topk_method": "greedy"})", "topk_method", "noaux_tc"},
        Mistake{"deepseek-v3", R"({"num_nextn_predict_layers": -1})", "num_nextn_predict_layers", "-1"},
        Mistake{"deepseek-v3", R"({"num_hidden_layers": 65536})", "num_hidden_layers", "experts"},
        Mistake{"mixtral-8x7b", R"({"num_key_value_heads": 5})", "num_attention_heads",
                "num_key_value_heads"},
        Mistake{"mixtral-8x7b", R"({"num_attention_heads": 24})", "hidden_size", "num_attention_heads"},
        Mistake{"mixtral-8x7b", R"({"num_local_experts": 1})", "num_experts_per_tok", "1 routed"},
        Mistake{"mixtral-8x7b", R"({"sliding_window": 4096})", "sliding_window", "4096"},
        Mistake{"mixtral-8x7b", R"({"head_dim": 127})", "head_dim", "even"},
        Mistake{"qwen3-30b-a3b", R"({"mlp_only_layers": [48]})", "mlp_only_layers", "48"},
        Mistake{"qwen3-30b-a3b", R"({"mlp_only_layers": ["a"]})", "mlp_only_layers", "whole numbers"},
        Mistake{"qwen3-30b-a3b", R"({"decoder_sparse_step": 0})", "decoder_sparse_step", "from 1"},
        Mistake{"qwen3-30b-a3b", R"({"use_sliding_window": true, "sliding_window": 4096})", "sliding_window",
                "4096"},
        Mistake{"llama-3.1-8b", R"({"mlp_bias": true})", "mlp_bias", "not build"},
        Mistake{"llama-3.1-8b", R"({"layer_types": ["sliding_attention"]})", "layer_types", "full_attention"},
        Mistake{"llama-3.1-8b", R"({"rope_scaling": {"low_freq_factor": 4}})", "high_freq_factor",
                "low_freq_factor"},
        Mistake{"llama-3.1-8b", R"({"partial_rotary_factor": 0.5})", "partial_rotary_factor", "0.5"},
        Mistake{"llama-3.1-8b", R"({"rope_parameters": {"full_attention": {}}})",
                "rope_parameters.full_attention", "alike"}));

TEST(ModelConfigErrors, TextThatIsNotOneJsonObject) {
  EXPECT_THAT(message(""), HasSubstr("dir/config.json: not valid JSON"));
  EXPECT_THAT(message("{\"model_type\": \"llama\""), HasSubstr("not valid JSON"));
  EXPECT_THAT(message("[1, 2]"), HasSubstr("not a JSON object"));
  EXPECT_THAT(message("{\"a\": \"\xff\xfe\"}"), AllOf(HasSubstr("not valid JSON"), Not(HasSubstr("\xff"))));
  EXPECT_THAT(message(std::string(200000, '[')), HasSubstr("nested too deeply"));
  EXPECT_THAT(message(R"({"model_type": "llama", "model_type": "mixtral"})"),
              HasSubstr("model_type is there twice"));
  EXPECT_THAT(message(R"({"model_type": "a\nb"})"), Not(HasSubstr("\n")));
}

TEST(ModelConfigErrors, MissingFilesAndPresets) {
  const test::TempDir dir;
  const auto load = [](const test::fs::path& path) {
    try {
      load_model_config(path);
    } catch (const UserError& error) {
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  EXPECT_THAT(load(dir.path()), HasSubstr("no config.json in this folder"));
  EXPECT_THAT(load(dir / "none.json"), HasSubstr("none.json"));
  EXPECT_THAT(load("deepseek-v4"), AllOf(HasSubstr("no preset"), HasSubstr("deepseek-v3")));
  EXPECT_THAT(load(""), Not(HasSubstr("accepted")));
}

}  // namespace
}  // namespace sinew
