// Faults on purpose, for tests of recovery: SINEW_FAULT holds a list such as "nan@5,kill-save@20".
//   nan@N        the loss of step N is not a number
//   spike@N      the loss of step N is a thousand times larger
//   kill-rankR@N, fail-rankR@N  rank R of several is killed, or fails with an error, in step N
//   kill-save@N  SIGKILL half-way through writing the checkpoint of step N
// Steps count from 1. A run that went back past N does not meet the same fault again.
#pragma once

#include <cstdint>
#include <string_view>

namespace sinew {

bool fault(std::string_view kind, std::int64_t step);
void set_faults(std::string_view list);  // in place of those of the environment

}  // namespace sinew
