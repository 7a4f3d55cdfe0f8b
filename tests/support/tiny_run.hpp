// A world small enough to train in in seconds: a byte-level tokenizer, a text, models of a few thousand
// parameters.
#pragma once

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "support/support.hpp"

namespace sinew::test {

// GPT-2's printable stand-in for each byte, as UTF-8.
inline std::string byte_symbol(int byte) {
  const auto printable = [](int b) {
    return (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || (b >= 174 && b <= 255);
  };
  int code = byte;
  if (!printable(byte)) {
    code = 256;
    for (int b = 0; b < byte; ++b) code += printable(b) ? 0 : 1;
  }
  if (code < 0x80) return std::string(1, static_cast<char>(code));
  return {static_cast<char>(0xC0 | code >> 6), static_cast<char>(0x80 | (code & 0x3F))};
}

// Every byte a token, 256 the end of text.
inline void write_tiny_tokenizer(const fs::path& path) {
  nlohmann::ordered_json vocab;
  for (int byte = 0; byte < 256; ++byte) vocab[byte_symbol(byte)] = byte;
  const nlohmann::ordered_json byte_level = {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}};
  const nlohmann::ordered_json end = {
      {"id", 256},       {"content", "<|endoftext|>"}, {"single_word", false}, {"lstrip", false},
      {"rstrip", false}, {"normalized", false},        {"special", true}};
  const nlohmann::ordered_json json = {{"version", "1.0"},
                                       {"truncation", nullptr},
                                       {"padding", nullptr},
                                       {"added_tokens", {end}},
                                       {"normalizer", nullptr},
                                       {"pre_tokenizer", byte_level},
                                       {"post_processor", nullptr},
                                       {"decoder", byte_level},
                                       {"model",
                                        {{"type", "BPE"},
                                         {"dropout", nullptr},
                                         {"unk_token", nullptr},
                                         {"continuing_subword_prefix", nullptr},
                                         {"end_of_word_suffix", nullptr},
                                         {"fuse_unk", false},
                                         {"vocab", vocab},
                                         {"merges", nlohmann::json::array()}}}};
  spit(path, json.dump());
}

// About 80 KB in 160 paragraphs that a small model learns something of at once.
inline std::string tiny_text() {
  const std::vector<std::string> words{"sea", "stone", "wind",  "river", "the",   "a",
                                       "of",  "and",   "sings", "falls", "rises", "slowly"};
  std::string text;
  std::uint32_t state = 12345;
  for (int paragraph = 0; paragraph < 160; ++paragraph) {
    for (int word = 0; word < 90; ++word) {
      state = state * 1664525u + 1013904223u;
      text += words[(state >> 16) % words.size()];
      text += word % 10 == 9 ? ".\n" : " ";
    }
    text += "\n\n";
  }
  return text;
}

inline nlohmann::ordered_json tiny_v2() {
  return {{"architectures", {"DeepseekV2ForCausalLM"}},
          {"model_type", "deepseek_v2"},
          {"vocab_size", 260},
          {"hidden_size", 32},
          {"intermediate_size", 64},
          {"moe_intermediate_size", 16},
          {"num_hidden_layers", 2},
          {"num_attention_heads", 2},
          {"num_key_value_heads", 2},
          {"n_shared_experts", 1},
          {"n_routed_experts", 4},
          {"num_experts_per_tok", 2},
          {"moe_layer_freq", 1},
          {"first_k_dense_replace", 1},
          {"kv_lora_rank", 16},
          {"q_lora_rank", nullptr},
          {"qk_rope_head_dim", 8},
          {"qk_nope_head_dim", 8},
          {"v_head_dim", 8},
          {"topk_method", "greedy"},
          {"n_group", 1},
          {"topk_group", 1},
          {"norm_topk_prob", false},
          {"routed_scaling_factor", 1.0},
          {"scoring_func", "softmax"},
          {"seq_aux", true},
          {"aux_loss_alpha", 0.01},
          {"hidden_act", "silu"},
          {"max_position_embeddings", 128},
          {"rms_norm_eps", 1e-6},
          {"rope_theta", 10000.0},
          {"rope_scaling", nullptr},
          {"attention_bias", false},
          {"attention_dropout", 0.0},
          {"tie_word_embeddings", false},
          {"initializer_range", 0.05},
          {"torch_dtype", "float32"}};
}

// With a bias-corrected gate and a multi-token-prediction layer: the most state a checkpoint has to carry.
inline nlohmann::ordered_json tiny_v3() {
  auto json = tiny_v2();
  json["architectures"] = {"DeepseekV3ForCausalLM"};
  json["model_type"] = "deepseek_v3";
  json["q_lora_rank"] = 16;
  json["topk_method"] = "noaux_tc";
  json["scoring_func"] = "sigmoid";
  json["norm_topk_prob"] = true;
  json["n_group"] = 2;
  json["topk_group"] = 1;
  json["num_nextn_predict_layers"] = 1;
  return json;
}

inline std::vector<nlohmann::json> metrics_lines(const fs::path& path) {
  std::vector<nlohmann::json> lines;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) lines.push_back(nlohmann::json::parse(line));
  return lines;
}

// What must be equal between an unbroken run and a resumed one: everything but times, speeds and memory.
inline std::vector<std::string> reproducible_lines(const fs::path& path) {
  std::vector<std::string> lines;
  for (auto line : metrics_lines(path)) {
    for (const char* key :
         {"tokens_per_second", "mfu", "memory_bytes", "step_seconds", "data_seconds", "compute_seconds",
          "communication_seconds", "bubble_seconds", "optimizer_seconds", "planned_step_seconds"})
      line.erase(key);
    lines.push_back(line.dump());
  }
  return lines;
}

}  // namespace sinew::test
