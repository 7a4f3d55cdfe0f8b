// The rotary keys of a config.json, in the spellings of transformers 4 and 5; inside this room only.
#pragma once

#include "config/config_reader.hpp"
#include "config/model_config.hpp"

namespace sinew {

void read_rope(const ConfigReader& reader, double default_theta, ModelConfig& config);
void write_rope(const ModelConfig& config, Json& json);

// YaRN's get_mscale: 0.1 mscale ln(factor) + 1.
double yarn_mscale(double factor, double mscale);

}  // namespace sinew
