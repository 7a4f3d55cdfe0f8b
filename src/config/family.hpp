// A model family: how its config.json and its tensor names map onto ModelConfig. One file each
// (family_<name>.cpp); inside this room only.
#pragma once

#include <span>
#include <string_view>

#include "config/config_reader.hpp"
#include "config/model_config.hpp"

namespace sinew {

struct Family {
  std::string_view model_type;
  std::string_view architecture;  // the HF class
  MoeNames moe_names;
  // Fills what is the family's own; sizes every family has, rotary and token ids are read before.
  void (*read)(const ConfigReader& reader, ModelConfig& config);
  // Adds the family's own keys.
  void (*write)(const ModelConfig& config, Json& json);
};

extern const Family kDeepseekV2, kDeepseekV3, kMixtral, kQwen3Moe, kLlama;

std::span<const Family* const> families();
const Family& family_of(std::string_view model_type);  // throws Error: the caller has checked it

// Pieces the families share.
void read_mla(const ConfigReader& reader, ModelConfig& config);
void write_mla(const ModelConfig& config, Json& json);
void read_gqa(const ConfigReader& reader, ModelConfig& config, bool kv_heads_required);
void write_gqa(const ModelConfig& config, Json& json);
void read_deepseek_moe(const ConfigReader& reader, ModelConfig& config);
void write_deepseek_moe(const ModelConfig& config, Json& json);
// Only full attention is built: sliding windows and mixed layer types are refused by name.
void refuse_windows(const ConfigReader& reader, std::int64_t max_positions, bool in_use);

}  // namespace sinew
