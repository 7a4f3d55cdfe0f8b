// Pipeline schedules as data: a pure function from (kind, ranks, micro-batches, chunks) to a list of
// actions for each rank. The trainer executes these lists; the planner simulates the same lists.
//
// A model is cut into ranks x chunks virtual stages. Micro-batch m passes stages 0, 1, .. forward and the
// same stages in reverse backward. A backward pass is one action, or two: the gradient of the input
// (which the stage before waits for) and the gradient of the weights (which nobody waits for).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace sinew {

enum class Pass : std::uint8_t { forward, backward, backward_input, backward_weight };

struct Action {
  Pass pass;
  std::int32_t micro_batch;
  std::int32_t chunk;  // which of the rank's stages
  bool operator==(const Action&) const = default;
};

enum class ScheduleKind {
  gpipe,        // all forward, then all backward (Huang et al. 2019)
  gpipe_flush,  // GPipe within the memory of 1F1B: a flush after every `ranks` micro-batches
  one_f_one_b,  // PipeDream-flush (Narayanan et al. 2021, section 2.2.1)
  interleaved,  // 1F1B over several chunks a rank (the same paper, section 2.2.2)
  zero_bubble,  // ZB-H1: split backward, memory of 1F1B (Qi et al. 2024, section 2.2)
  dualpipe_v,   // two chunks a rank laid out as a V (DeepSeek-AI, DualPipe, 2025)
};

struct Schedule {
  ScheduleKind kind;
  int ranks, chunks, micro_batches;
  std::vector<std::vector<Action>> actions;  // one list a rank, executed in order

  int stages() const { return ranks * chunks; }
  int stage_of(int rank, int chunk) const;
  int rank_of(int stage) const;
  int chunk_of(int stage) const;
};

// `chunks` counts for `interleaved` (1 or more); dualpipe_v always has 2 and the others 1. Any counts of 1
// or more work: where a published schedule asks for a multiple, the next multiple is made and the
// micro-batches beyond the last are left out. Throws UserError on counts below 1 or above 2^20 actions a
// rank.
Schedule make_schedule(ScheduleKind kind, int ranks, int micro_batches, int chunks = 1);

// Names as typed: gpipe, gpipe-flush, 1f1b, interleaved, zero-bubble, dualpipe-v. Unknown ones throw
// UserError with the nearest.
ScheduleKind parse_schedule_kind(std::string_view name);
std::string schedule_name(ScheduleKind kind);
const std::vector<ScheduleKind>& schedule_kinds();

// "" when the schedule is whole and cannot hang: every (micro-batch, chunk) of a rank has one forward and
// then one whole backward; an order exists in which all ranks reach their ends, each executing its list
// in order and waiting only for the stages before (forward) or after (backward). Else what is wrong.
std::string schedule_problem(const Schedule& schedule);

}  // namespace sinew
