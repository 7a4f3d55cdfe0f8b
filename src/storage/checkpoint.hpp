// Training checkpoints: ROOT/step-N/ of safetensors files plus manifest.json (docs/checkpoint-format.md).
// A checkpoint is written under a temporary name, made durable and renamed, so that step-N is whole or
// absent. Every rank of a layout writes its own slices; a reader asks for any region of a tensor.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "storage/safetensors.hpp"

namespace sinew {

// Part of a tensor: elements [offset, offset + shape) of it are the tensor `key` of `file`.
struct TensorSlice {
  std::string file, key;
  std::vector<std::int64_t> offset, shape;
};

// A tensor of the state: "weight/NAME", "first/NAME", "second/NAME" with HF names.
struct CheckpointTensor {
  std::string name;
  DType dtype = DType::F32;
  std::vector<std::int64_t> shape;  // whole
  std::vector<TensorSlice> slices;  // tile it
};

struct CheckpointFile {
  std::string name;
  std::uint64_t bytes = 0;
  std::string xxh3;
};

// What a resumed run needs beside tensors.
struct TrainingState {
  std::int64_t step = 0;      // steps done
  std::uint64_t samples = 0;  // sequences read: the next step begins at this one
  std::uint64_t tokens = 0;
  std::int64_t updates = 0;  // of the optimizer: steps less those skipped
  std::uint64_t seed = 0;    // all random numbers are functions of (seed, name or step)
  std::string optimizer, dtype, layout;
  std::vector<double> recent_losses;  // of the guard against spikes
  std::int64_t skipped = 0, rollbacks = 0;
  std::string tokenizer_checksum;
};

// A slice to be written. `bytes` is called once, when its turn comes.
struct SliceData {
  std::string name;
  DType dtype = DType::F32;
  std::vector<std::int64_t> shape, offset, extent;
  std::function<std::span<const std::byte>()> bytes;
};

struct CheckpointPart {
  std::vector<CheckpointFile> files;
  std::vector<CheckpointTensor> tensors;
};

// Writes `slices` into files KIND-rRANK-0000I.safetensors of `directory`, keyed by the name after its first
// "/", so that the files of weights hold HF names; further slices of one tensor are keyed "NAME#1", "NAME#2".
// `after_file` is told how many files are written.
CheckpointPart write_checkpoint_part(const std::filesystem::path& directory, const std::string& kind,
                                     int rank, std::span<const SliceData> slices,
                                     const std::function<void(std::size_t)>& after_file = {});

// The folder that ROOT/step-N is prepared in, empty.
std::filesystem::path begin_checkpoint(const std::filesystem::path& root, std::int64_t step);

// Writes the other files (config.json, tokenizer.json, ..) and the manifest, and renames the folder to
// step-N, in place of one of that name. Returns its path. `parts` are those of all ranks.
std::filesystem::path commit_checkpoint(const std::filesystem::path& prepared, const TrainingState& state,
                                        const std::vector<CheckpointPart>& parts,
                                        const std::map<std::string, std::string>& other_files);

enum class FileCheck {
  contents,  // every byte, against the manifest's checksums
  sizes,     // presence and size: another process has read them all
};

class CheckpointReader {
 public:
  // Reads the manifest and checks it and every file: presence, size, checksum, and that slices tile their
  // tensors. Throws UserError that names the file and what is wrong with it.
  explicit CheckpointReader(std::filesystem::path directory, FileCheck check = FileCheck::contents);

  const TrainingState& state() const { return state_; }
  const std::vector<CheckpointTensor>& tensors() const { return tensors_; }
  const CheckpointTensor* find(std::string_view name) const;
  // The region [offset, offset + extent) of a tensor, in row order, into `out`.
  void read(const CheckpointTensor& tensor, std::span<const std::int64_t> offset,
            std::span<const std::int64_t> extent, std::byte* out) const;
  void read_all(const CheckpointTensor& tensor, std::byte* out) const;
  std::string text(const std::string& file) const;  // one of the other files
  bool has(const std::string& file) const;
  std::vector<std::string> other_files() const;  // all but the safetensors
  const std::filesystem::path& path() const { return directory_; }

 private:
  std::filesystem::path directory_;
  TrainingState state_;
  std::vector<CheckpointTensor> tensors_;
  std::vector<CheckpointFile> files_;
  std::map<std::string, std::unique_ptr<Safetensors>> open_;
  std::map<std::string, std::size_t, std::less<>> index_;
};

// Steps that ROOT has checkpoints of, rising; whole or not.
std::vector<std::int64_t> list_checkpoints(const std::filesystem::path& root);
std::filesystem::path checkpoint_path(const std::filesystem::path& root, std::int64_t step);

// The newest sound checkpoint of ROOT. Each damaged one met on the way goes to `damaged` as its error. Null
// when there is no checkpoint at all; throws UserError when all are damaged.
std::unique_ptr<CheckpointReader> open_newest_checkpoint(
    const std::filesystem::path& root, const std::function<void(const std::string&)>& damaged);

// Of `steps` (rising), those that neither belong to the `keep_last` newest nor are multiples of `keep_every`.
std::vector<std::int64_t> checkpoints_to_remove(std::span<const std::int64_t> steps, std::int64_t keep_last,
                                                std::int64_t keep_every);
// Removes a checkpoint; false when the system refuses.
bool remove_checkpoint(const std::filesystem::path& root, std::int64_t step);
// Removes what a run that died while writing left behind.
void remove_unfinished_checkpoints(const std::filesystem::path& root);

}  // namespace sinew
