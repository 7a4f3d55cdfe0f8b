// The state of a run to a checkpoint and back.
#pragma once

#include <map>
#include <string>

#include "storage/checkpoint.hpp"
#include "train/optimizer.hpp"

namespace sinew {

// Writes ROOT/step-N, N = state.step, and removes old ones by the policy. Returns its path. Throws IoError
// (a full disk, say), the checkpoints there being left as they are.
std::filesystem::path save_checkpoint(const std::filesystem::path& root, const TrainingState& state,
                                      const Optimizer& optimizer,
                                      const std::map<std::string, std::string>& other_files,
                                      const RunConfig::Checkpoint& policy);

// Fills the optimizer's weights and moments. Throws UserError when tensors are missing or of another shape.
void load_checkpoint(const CheckpointReader& reader, Optimizer& optimizer);

}  // namespace sinew
