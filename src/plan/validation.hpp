// `sinew plan validate`: published runs beside their predictions.
#pragma once

#include <filesystem>
#include <string>

#include "plan/constants.hpp"

namespace sinew::plan {

struct ValidationOptions {
  bool json = false;
  bool rows = false;          // print every row, not only the tables
  bool markdown = false;      // tables for docs/planner.md
  bool leave_one_out = true;  // only where the constants were fitted on this very file
};

// The table or the JSON document. Errors are of step time (or tokens/s); runs known only by a quoted TFLOP/s
// are predicted and listed but not counted.
std::string validate_runs(const std::filesystem::path& path, const ValidationOptions& options);

// Fits the constants to the file and returns what data/planner/constants.json then holds.
std::string fit_runs(const std::filesystem::path& path, int rounds);

}  // namespace sinew::plan
