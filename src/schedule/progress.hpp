// What a rank of a pipeline can be sure of without being told.
#pragma once

#include <vector>

#include "schedule/schedule.hpp"

namespace sinew {

// known[i][q]: how many actions of rank q are over, whatever the times, once `rank` has received what its
// action i waits for. A message that one of these took has arrived: what was kept for sending it can go.
// Throws UserError when the schedule hangs.
std::vector<std::vector<int>> known_progress(const Schedule& schedule, int rank);

}  // namespace sinew
