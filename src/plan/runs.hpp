// Published training runs (the format of runs_public.json): each row a model, a machine, a layout and what
// was measured. Any field may be missing; a row is refused only when nothing can be predicted from it.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "plan/step.hpp"

namespace sinew::plan {

enum class Measured { none, step_time, tokens_per_second, tflops, out_of_memory };

struct PublishedRun {
  std::string name, source, sweep;  // sweep: rows of one comparison of layouts; "" alone
  Setup setup;
  bool layout_known = true;  // false: the row does not say; the best layout that fits is assumed
  Measured measured = Measured::none;
  double measured_seconds = 0;  // of a step; from tokens/s, or from TFLOP/s by the row's own convention
  std::string note;             // what was assumed
};

std::vector<PublishedRun> read_runs(const std::filesystem::path& path);
std::vector<PublishedRun> parse_runs(const std::string& json, const std::string& origin);

// The decimal year of the software behind a row: its container's number (25.04), an MLPerf round (v4.1), a
// paper's arXiv number, a year in the text, a known name; else a year and a half after the chip.
double software_date(const std::string& text, const Accelerator& chip);

// Predicts a run; for one without a layout finds the fastest common layout that fits first.
StepPrediction predict_run(const PublishedRun& run, const Constants& constants);
void assume_layout(PublishedRun& run, const Constants& constants);

}  // namespace sinew::plan
