// What operations take on this machine, measured once and remembered from run to run.
#pragma once

#include <filesystem>
#include <memory>

#include "train/part_bench.hpp"

namespace sinew {

struct MeasuredParts {
  StepParts parts;
  StepLinks links;  // of a run on several processes
  bool remembered = false;
};

// bench_parts() and bench_links(), or what they said in an earlier run of the same program, model, shape,
// layout and number of threads on the same kind of processor, if a product takes now what it took then:
// within a tenth. `folder`: where they are kept, one file each; empty: measured anew. With `mesh` all
// processes call it together; rank 0 reads and writes.
MeasuredParts measured_parts(const ModelConfig& config, const PartShape& shape,
                             const RunConfig::Optimizer& optimizer, const std::shared_ptr<Mesh>& mesh,
                             const std::filesystem::path& folder, double seconds = 0.5, double probed = 0);

// Sinew's folder in the user's cache ($XDG_CACHE_HOME, else ~/.cache); empty where there is neither.
std::filesystem::path parts_folder();

}  // namespace sinew
