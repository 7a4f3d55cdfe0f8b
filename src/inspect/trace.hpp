// The traces of all ranks of a run (base/trace_file.hpp) as one file for Perfetto and chrome://tracing.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "base/spans.hpp"

namespace sinew {

struct RankTrace {
  int rank = 0;
  std::string label;
  std::uint64_t events = 0;
  SpanTotals totals;   // each second once: of a span without those inside it
  double seconds = 0;  // from the first begin to the last end
};

struct TraceReport {
  std::vector<RankTrace> ranks;
  std::string text, json;  // for people and for programs
};

// Reads RUN/trace/rank-*.jsonl and writes `out` in the Trace Event Format (one process a rank, complete
// events, microseconds from the first event; ranks of other machines are aligned by their wall clocks). A
// last line cut short is dropped. Throws UserError when there is no trace or a file is not one.
TraceReport merge_traces(const std::filesystem::path& run, const std::filesystem::path& out);

}  // namespace sinew
