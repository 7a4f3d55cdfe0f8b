// What `sinew generate` was asked for, for the two ways to answer.
#pragma once

#include <string>

#include "engine/sampling.hpp"

namespace sinew::cli {

struct GenerateCommand {
  std::string model, prompt, dtype = "fp32", device = "auto";
  engine::Sampling sampling;
  std::int64_t max_tokens = 256;
  bool no_cache = false, json = false;
};
void generate_with_torch(const GenerateCommand& options);  // in builds with libtorch

}  // namespace sinew::cli
