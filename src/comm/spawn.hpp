// Starting the processes of a run on one machine.
#pragma once

#include <string>
#include <vector>

namespace sinew {

// Runs `arguments` (the first is the program) as `ranks` processes that find each other as under torchrun,
// each with its share of the cores. Signals to stop are passed on. When one fails the others get some seconds
// to see it and are then ended. Returns the exit code: 0 when all ended well, else that of the first to fail.
int spawn_ranks(const std::vector<std::string>& arguments, int ranks);

// In a spawned process: end when the parent is gone.
void follow_parent();

}  // namespace sinew
