// Where the time of training steps goes, on this process and on the mean one; and the trace of the first
// steps.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>

#include "base/spans.hpp"
#include "base/trace_file.hpp"
#include "comm/mesh.hpp"

namespace sinew {

// Lives in the thread that trains. Spans opened there are counted until end_step().
class StepClock {
 public:
  // Keeps the spans of the first `trace_steps` steps in `directory` (made if need be), one file a rank.
  // `mesh` may be null.
  StepClock(std::filesystem::path directory, std::int64_t trace_steps, Mesh* mesh);

  void end_step();
  // Seconds a step by kind since the last call; with a mesh the mean over all processes, which all must call.
  SpanTotals mean_step();

 private:
  std::filesystem::path directory_;
  std::int64_t trace_left_, steps_ = 0;
  Mesh* mesh_;
  SpanLog log_;
  SpanTotals sums_;
  std::unique_ptr<TraceFile> trace_;
};

}  // namespace sinew
