// The planner's own data: data/ of the source tree, share/sinew/data when installed.
#pragma once

#include <filesystem>

namespace sinew::plan {

// SINEW_DATA if set, else ../share/sinew/data beside the program, else the source tree's. Throws UserError
// when there is none.
std::filesystem::path data_dir();

}  // namespace sinew::plan
