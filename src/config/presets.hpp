// The configurations that come with Sinew: configs/ of the source tree, share/sinew/configs when installed.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace sinew {

// SINEW_CONFIGS if set, else ../share/sinew/configs beside the program, else the source tree's. Throws
// UserError when there is none.
std::filesystem::path configs_dir();

std::vector<std::string> model_presets();  // names under configs/models, sorted

}  // namespace sinew
