#include "config/presets.hpp"

#include <algorithm>
#include <cstdlib>

#include "base/error.hpp"

namespace sinew {
namespace fs = std::filesystem;

fs::path configs_dir() {
  if (const char* set = std::getenv("SINEW_CONFIGS")) {
    require(fs::is_directory(fs::path(set) / "models"), "SINEW_CONFIGS={}: no folder models in it", set);
    return set;
  }
  std::error_code ignored;
  const fs::path program = fs::read_symlink("/proc/self/exe", ignored);
  const fs::path installed = program.parent_path().parent_path() / "share" / "sinew" / "configs";
  for (const fs::path& place : {installed, fs::path(SINEW_SOURCE_CONFIGS)})
    if (fs::is_directory(place / "models", ignored)) return place;
  fail("no presets: neither {} nor {} is there; set SINEW_CONFIGS to a folder configs", installed.string(),
       SINEW_SOURCE_CONFIGS);
}

std::vector<std::string> model_presets() {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(configs_dir() / "models"))
    if (fs::exists(entry.path() / "config.json")) names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace sinew
