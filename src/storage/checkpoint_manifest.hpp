// manifest.json of a checkpoint, to and from text.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "storage/checkpoint.hpp"

namespace sinew {

struct CheckpointManifest {
  TrainingState state;
  std::vector<CheckpointFile> files;
  std::vector<CheckpointTensor> tensors;
};

std::string write_manifest(const CheckpointManifest& manifest);
// Throws UserError: not JSON, checksum does not match, unknown version, fields missing or of a wrong kind,
// slices outside their tensor or that do not tile it.
CheckpointManifest parse_manifest(std::string_view text, const std::string& origin);

// What one process tells the one that writes the manifest.
std::string describe_parts(const std::vector<CheckpointPart>& parts);
std::vector<CheckpointPart> parse_parts(std::string_view text);

}  // namespace sinew
