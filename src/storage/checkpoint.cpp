#include "storage/checkpoint.hpp"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <map>
#include <optional>

#include "base/checksum.hpp"
#include "base/error.hpp"
#include "storage/checkpoint_manifest.hpp"

namespace sinew {
namespace {

constexpr std::uint64_t kShardBytes = std::uint64_t{2} << 30;
constexpr const char* kUnfinished = ".unfinished";
constexpr const char* kManifest = "manifest.json";

CheckpointFile describe(const fs::path& path) {
  const MappedFile file(path);
  return {
      .name = path.filename().string(), .bytes = file.size(), .xxh3 = hex64(xxh3(file.data(), file.size()))};
}

std::string key_of(const std::string& name) { return name.substr(name.find('/') + 1); }

std::uint64_t bytes_of(const SliceData& slice) {
  std::uint64_t bytes = dtype_size(slice.dtype);
  for (const std::int64_t size : slice.extent) bytes *= static_cast<std::uint64_t>(size);
  return bytes;
}

// Keys of one file's slices: the name, and for further slices of the same tensor the name with a number.
std::vector<std::string> keys_of(std::span<const SliceData> slices) {
  std::vector<std::string> keys;
  std::map<std::string, int> seen;
  for (const auto& s : slices) {
    const auto key = key_of(s.name);
    const int before = seen[key]++;
    keys.push_back(before == 0 ? key : fmt::format("{}#{}", key, before));
  }
  return keys;
}

void write_shard(const fs::path& path, std::span<const SliceData> slices,
                 const std::vector<std::string>& keys) {
  std::vector<TensorInfo> infos;
  for (std::size_t i = 0; i < slices.size(); ++i)
    infos.push_back({.name = keys[i],
                     .dtype = slices[i].dtype,
                     .shape = slices[i].extent,
                     .offset = 0,
                     .bytes = bytes_of(slices[i])});
  SafetensorsWriter writer(path, infos, {{"format", "pt"}});
  for (const auto& s : slices) {
    const auto bytes = s.bytes();
    writer.write(bytes.data(), bytes.size());
  }
  writer.commit();
}

// The slices from `first` on that fit one shard: at least one, under kShardBytes together, moments of one
// kind (the key tells no kinds apart).
std::size_t shard_end(std::span<const SliceData> slices, std::size_t first) {
  std::uint64_t bytes = 0;
  std::map<std::string, std::string> names;  // by key
  std::size_t end = first;
  for (; end < slices.size(); ++end) {
    bytes += bytes_of(slices[end]);
    const auto [found, fresh] = names.emplace(key_of(slices[end].name), slices[end].name);
    if (found->second != slices[end].name || (end > first && bytes > kShardBytes)) break;
  }
  return end;
}

std::vector<CheckpointTensor> merge(const std::vector<CheckpointPart>& parts) {
  std::vector<CheckpointTensor> tensors;
  std::map<std::string, std::size_t> where;
  for (const auto& part : parts) {
    for (const auto& tensor : part.tensors) {
      const auto [found, fresh] = where.emplace(tensor.name, tensors.size());
      if (fresh) {
        tensors.push_back(tensor);
        continue;
      }
      auto& slices = tensors[found->second].slices;
      slices.insert(slices.end(), tensor.slices.begin(), tensor.slices.end());
    }
  }
  return tensors;
}

std::optional<std::int64_t> step_of(const std::string& name) {
  std::int64_t step = 0;
  if (!name.starts_with("step-")) return std::nullopt;
  const char* const begin = name.data() + 5;
  const char* const end = name.data() + name.size();
  const auto [stop, error] = std::from_chars(begin, end, step);
  if (error != std::errc() || stop != end || step < 0) return std::nullopt;
  return step;
}

}  // namespace

CheckpointPart write_checkpoint_part(const fs::path& directory, const std::string& kind, int rank,
                                     std::span<const SliceData> slices,
                                     const std::function<void(std::size_t)>& after_file) {
  CheckpointPart part;
  for (std::size_t first = 0; first < slices.size();) {
    const std::size_t end = shard_end(slices, first);
    const std::string name = fmt::format("{}-r{:05}-{:05}.safetensors", kind, rank, part.files.size());
    const auto own = slices.subspan(first, end - first);
    const auto keys = keys_of(own);
    write_shard(directory / name, own, keys);
    part.files.push_back(describe(directory / name));
    for (std::size_t i = 0; i < own.size(); ++i)
      part.tensors.push_back(
          {.name = own[i].name,
           .dtype = own[i].dtype,
           .shape = own[i].shape,
           .slices = {{.file = name, .key = keys[i], .offset = own[i].offset, .shape = own[i].extent}}});
    first = end;
    if (after_file) after_file(part.files.size());
  }
  return part;
}

fs::path checkpoint_path(const fs::path& root, std::int64_t step) {
  return root / fmt::format("step-{}", step);
}

fs::path begin_checkpoint(const fs::path& root, std::int64_t step) {
  make_directories(root);
  const fs::path prepared = checkpoint_path(root, step).string() + kUnfinished;
  std::error_code ignored;
  fs::remove_all(prepared, ignored);
  make_directories(prepared);
  return prepared;
}

fs::path commit_checkpoint(const fs::path& prepared, const TrainingState& state,
                           const std::vector<CheckpointPart>& parts,
                           const std::map<std::string, std::string>& other_files) {
  CheckpointManifest manifest{.state = state, .files = {}, .tensors = merge(parts)};
  for (const auto& part : parts)
    manifest.files.insert(manifest.files.end(), part.files.begin(), part.files.end());
  for (const auto& [name, text] : other_files) {
    write_file_atomic(prepared / name, text);
    manifest.files.push_back(describe(prepared / name));
  }
  write_file_atomic(prepared / kManifest, write_manifest(manifest));
  const fs::path root = prepared.parent_path(), done = checkpoint_path(root, state.step);
  std::error_code error;
  if (fs::exists(done)) {  // a damaged one, or one that the run went back past
    const fs::path old = done.string() + ".old" + kUnfinished;
    fs::remove_all(old, error);
    fs::rename(done, old, error);
    if (error) throw IoError(fmt::format("{}: cannot replace: {}", done.string(), error.message()));
  }
  fs::rename(prepared, done, error);
  if (error) throw IoError(fmt::format("{}: cannot rename into place: {}", done.string(), error.message()));
  sync_directory(root);
  fs::remove_all(done.string() + ".old" + kUnfinished, error);
  return done;
}

std::vector<std::int64_t> list_checkpoints(const fs::path& root) {
  std::vector<std::int64_t> steps;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(root, error))
    if (const auto step = step_of(entry.path().filename().string())) steps.push_back(*step);
  std::sort(steps.begin(), steps.end());
  return steps;
}

std::unique_ptr<CheckpointReader> open_newest_checkpoint(
    const fs::path& root, const std::function<void(const std::string&)>& damaged) {
  const auto steps = list_checkpoints(root);
  for (auto step = steps.rbegin(); step != steps.rend(); ++step) {
    try {
      return std::make_unique<CheckpointReader>(checkpoint_path(root, *step));
    } catch (const UserError& error) {
      damaged(error.what());
    }
  }
  require(steps.empty(), "{}: all {} checkpoints are damaged; start anew with --overwrite", root.string(),
          steps.size());
  return nullptr;
}

std::vector<std::int64_t> checkpoints_to_remove(std::span<const std::int64_t> steps, std::int64_t keep_last,
                                                std::int64_t keep_every) {
  std::vector<std::int64_t> removed;
  const auto last = static_cast<std::size_t>(keep_last);
  for (std::size_t i = 0; i + last < steps.size(); ++i)
    if (keep_every == 0 || steps[i] % keep_every != 0) removed.push_back(steps[i]);
  return removed;
}

bool remove_checkpoint(const fs::path& root, std::int64_t step) {
  const fs::path path = checkpoint_path(root, step), doomed = path.string() + ".old" + kUnfinished;
  std::error_code error;
  fs::rename(path, doomed, error);  // never seen half-removed under its own name
  if (error) return false;
  fs::remove_all(doomed, error);
  return !error;
}

void remove_unfinished_checkpoints(const fs::path& root) {
  std::error_code error;
  std::vector<fs::path> doomed;
  for (const auto& entry : fs::directory_iterator(root, error))
    if (entry.path().filename().string().ends_with(kUnfinished)) doomed.push_back(entry.path());
  for (const auto& path : doomed) fs::remove_all(path, error);
}

}  // namespace sinew
