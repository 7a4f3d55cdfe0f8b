// The TOML of a run: no input may crash the reader, and what it accepts must survive writing and reading
// again.
#include <cstdlib>
#include <string_view>

#include "base/error.hpp"
#include "config/run_config.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  sinew::RunConfig config;
  try {
    sinew::apply_toml(config, text, "fuzz");
  } catch (const sinew::UserError&) {
    return 0;
  }
  const std::string written = sinew::to_toml(config);
  sinew::RunConfig again;
  sinew::apply_toml(again, written, "written");  // throws where a value that was read cannot be
  if (sinew::to_toml(again) != written || !sinew::config_differences(config, again).empty()) std::abort();
  try {
    sinew::check_run_config(config);
  } catch (const sinew::UserError&) {
  }
  return 0;
}
