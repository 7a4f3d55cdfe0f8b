// config.json: no input may crash the reader, and what it accepts must survive writing and reading again.
#include <cstdlib>
#include <string_view>

#include "base/error.hpp"
#include "config/model_config.hpp"
#include "config/rope.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  sinew::ModelConfig config;
  try {
    config = sinew::parse_model_config({reinterpret_cast<const char*>(data), size}, "fuzz");
  } catch (const sinew::UserError& error) {
    if (std::string_view(error.what()).find('\n') != std::string_view::npos) std::abort();
    return 0;
  }
  if (sinew::parse_model_config(sinew::write_model_config(config), "written") != config) std::abort();
  // A list of a million tensors is sound but slow; the sizes of smaller ones must add up.
  if (config.num_hidden_layers * (1 + config.moe.n_routed_experts) > 2000) return 0;
  const sinew::ParameterCounts counts = sinew::count_parameters(config);
  if (counts.active <= 0 || counts.active > counts.total || counts.mtp < 0) std::abort();
  if (sinew::kv_elements_per_token(config) <= 0 || !(sinew::train_flops_per_token(config, 4096) > 0))
    std::abort();
  if (sinew::rope_frequencies(config).empty()) std::abort();
  return 0;
}
