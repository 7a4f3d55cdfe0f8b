// The state of a run to a checkpoint and back.
#pragma once

#include <map>
#include <string>

#include "comm/mesh.hpp"
#include "storage/checkpoint.hpp"
#include "train/optimizer.hpp"

namespace sinew {

// Writes ROOT/step-N, N = state.step, and removes old ones by the policy. Returns its path. Throws IoError
// (a full disk, say), the checkpoints there being left as they are. With a mesh every process calls it and
// writes its own slices; rank 0 writes the manifest when all are done, and a failure of one is thrown on all.
std::filesystem::path save_checkpoint(const std::filesystem::path& root, const TrainingState& state,
                                      const Optimizer& optimizer,
                                      const std::map<std::string, std::string>& other_files,
                                      const RunConfig::Checkpoint& policy, Mesh* mesh = nullptr);

// That what all processes together wrote covers every tensor of the model's weights, and every moment, once:
// a process whose experts nobody asked for would be missed only when the run is resumed. Throws Error that
// names the tensor.
void check_complete(const std::vector<CheckpointPart>& parts, const ModelConfig& config);

// The newest sound checkpoint of ROOT, as open_newest_checkpoint(); with a mesh rank 0 alone checks the files
// and all get the one it chose.
std::unique_ptr<CheckpointReader> open_for_all(const std::filesystem::path& root, Mesh* mesh);

// Fills the optimizer's weights and moments, whatever layout wrote them. Throws UserError when tensors are
// missing or of another shape.
void load_checkpoint(const CheckpointReader& reader, Optimizer& optimizer);

}  // namespace sinew
