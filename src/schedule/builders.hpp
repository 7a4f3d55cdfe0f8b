// One builder a schedule kind. `rank` is in [0, ranks); lists hold only micro-batches below
// `micro_batches`.
#pragma once

#include <vector>

#include "schedule/schedule.hpp"

namespace sinew::build {

// Forward and backward by groups of `group` micro-batches, of which no more are held.
std::vector<Action> gpipe(int micro_batches, int group);
std::vector<Action> one_f_one_b(int ranks, int rank, int micro_batches);
std::vector<Action> interleaved(int ranks, int rank, int micro_batches, int chunks);
std::vector<Action> dualpipe_v(int ranks, int rank, int micro_batches);
// Made for all ranks at once: the choice of a rank depends on when the others deliver.
std::vector<std::vector<Action>> zero_bubble(int ranks, int micro_batches);

}  // namespace sinew::build
