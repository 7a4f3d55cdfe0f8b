// Processes of one program on one machine, for the commands that start some.
#pragma once

#include "comm/launch.hpp"

namespace sinew::cli {

// This program with these arguments as `ranks` processes; ends with their exit code where that is not 0.
void run_as_ranks(int ranks);

// In such a process: its share of the cores, waiting without spinning, and the end with its parent's.
void share_cores(const Launch& launch);

}  // namespace sinew::cli
