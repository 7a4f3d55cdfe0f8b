// Does a layout change what is computed? Tiny networks trained in every layout, each in processes of its own,
// against the run of one process (docs/layouts.md).
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace sinew {

struct LayoutCase {
  int processes;
  std::vector<std::string> layout;   // settings of [layout], "shard=8"
  bool small_micro_batches = false;  // 2 sequences instead of 8: for pipelines
  bool as_group_of_one = false;  // one process that goes the way of many (NCCL with a world of 1 on a GPU)
};
// At least 24, on 1, 2, 4 and 8 processes.
const std::vector<LayoutCase>& layout_cases();
// "deepseek-v2", "deepseek-v3" (with multi-token prediction), "mixtral"
const std::vector<std::string>& layout_models();

struct LayoutRow {
  std::string model, layout;
  int processes = 1;
  double loss_difference = 0;       // the largest of all steps, relative
  double parameter_difference = 0;  // the largest of all parameters after the last step, absolute
  std::string problem{};            // why there are no figures, or ""
  bool same() const { return problem.empty() && loss_difference <= 1e-5 && parameter_difference <= 1e-4; }
};

struct LayoutTableOptions {
  std::filesystem::path program;  // sinew
  std::filesystem::path out;      // runs are kept here
  std::vector<std::string> models;
  std::vector<std::size_t> cases;  // of layout_cases(); empty: all
  std::int64_t steps = 20;
  // Two experts may be tied for a token to the last bit, and then a layout's rounding may choose the other
  // one: 0 is for each model a seed at which this does not happen (docs/log.md).
  std::int64_t seed = 0;
  std::string device = "cpu";  // of the layouts; the run of one process is on the CPU
};
std::vector<LayoutRow> layout_table(const LayoutTableOptions& options,
                                    const std::function<void(const LayoutRow&)>& each);

std::string layout_markdown(const std::vector<LayoutRow>& rows, std::int64_t steps);

}  // namespace sinew
