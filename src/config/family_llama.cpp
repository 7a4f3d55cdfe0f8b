// Llama 1 to 3: dense.
#include "config/family.hpp"

namespace sinew {
namespace {

void read(const ConfigReader& reader, ModelConfig& config) {
  read_gqa(reader, config, false);
  config.attention_bias = reader.boolean_or("attention_bias", false);
  reader.check(!reader.boolean_or("mlp_bias", false), "mlp_bias", "is true, which Sinew does not build");
}

void write(const ModelConfig& config, Json& json) {
  write_gqa(config, json);
  json["attention_bias"] = config.attention_bias;
  json["mlp_bias"] = false;
}

}  // namespace

const Family kLlama{"llama", "LlamaForCausalLM", {"mlp", "gate_proj", "up_proj", "down_proj"}, read, write};

}  // namespace sinew
