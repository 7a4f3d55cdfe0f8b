#include <algorithm>
#include <cstring>

#include "base/checksum.hpp"
#include "base/error.hpp"
#include "storage/checkpoint.hpp"
#include "storage/checkpoint_manifest.hpp"

namespace sinew {
namespace {

void check_file(const fs::path& path, const CheckpointFile& expected, FileCheck check) {
  require(fs::exists(path), "{}: missing", path.string());
  const MappedFile file(path);
  require(file.size() == expected.bytes, "{}: {} bytes instead of {}: cut short or damaged", path.string(),
          file.size(), expected.bytes);
  if (check == FileCheck::sizes) return;
  require(hex64(xxh3(file.data(), file.size())) == expected.xxh3,
          "{}: its checksum does not match: the file is damaged", path.string());
}

// A box of a row-ordered array: where it begins and its sizes.
using Index = std::vector<std::int64_t>;

std::int64_t flat(const Index& position, std::span<const std::int64_t> origin,
                  std::span<const std::int64_t> sizes) {
  std::int64_t at = 0;
  for (std::size_t d = 0; d < position.size(); ++d) at = at * sizes[d] + position[d] - origin[d];
  return at;
}

// Copies what the box (from_origin, from_size) at `from` and the box (to_origin, to_size) at `to` share.
void copy_shared(const std::byte* from, std::span<const std::int64_t> from_origin,
                 std::span<const std::int64_t> from_size, std::byte* to,
                 std::span<const std::int64_t> to_origin, std::span<const std::int64_t> to_size,
                 std::size_t width) {
  const std::size_t dims = from_size.size();
  Index begin(dims), end(dims);
  for (std::size_t d = 0; d < dims; ++d) {
    begin[d] = std::max(from_origin[d], to_origin[d]);
    end[d] = std::min(from_origin[d] + from_size[d], to_origin[d] + to_size[d]);
    if (begin[d] >= end[d]) return;
  }
  const std::int64_t run = dims == 0 ? 1 : end[dims - 1] - begin[dims - 1];
  for (Index at = begin;;) {
    std::memcpy(to + static_cast<std::size_t>(flat(at, to_origin, to_size)) * width,
                from + static_cast<std::size_t>(flat(at, from_origin, from_size)) * width,
                static_cast<std::size_t>(run) * width);
    std::size_t d = dims;
    for (d = dims < 2 ? 0 : dims - 1; d > 0; --d) {  // the next row: all indices but the last count up
      if (++at[d - 1] < end[d - 1]) break;
      at[d - 1] = begin[d - 1];
    }
    if (d == 0) return;
  }
}

}  // namespace

CheckpointReader::CheckpointReader(fs::path directory, FileCheck check) : directory_(std::move(directory)) {
  const fs::path manifest_path = directory_ / "manifest.json";
  require(fs::is_directory(directory_), "{}: no such checkpoint", directory_.string());
  require(fs::exists(manifest_path), "{}: no manifest.json: the checkpoint is half-written",
          directory_.string());
  CheckpointManifest manifest = parse_manifest(read_file(manifest_path), manifest_path.string());
  state_ = std::move(manifest.state);
  tensors_ = std::move(manifest.tensors);
  files_ = std::move(manifest.files);
  for (const auto& file : files_) {
    check_file(directory_ / file.name, file, check);
    if (file.name.ends_with(".safetensors"))
      open_[file.name] = std::make_unique<Safetensors>(directory_ / file.name);
  }
  for (std::size_t i = 0; i < tensors_.size(); ++i) {
    const auto& t = tensors_[i];
    index_.emplace(t.name, i);
    for (const auto& slice : t.slices) {
      const auto file = open_.find(slice.file);
      const TensorInfo* info = file == open_.end() ? nullptr : file->second->find(slice.key);
      require(info != nullptr && info->shape == slice.shape && info->dtype == t.dtype,
              "{}: {} does not hold the slice of {} that the manifest says", directory_.string(), slice.file,
              t.name);
    }
  }
}

const CheckpointTensor* CheckpointReader::find(std::string_view name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? nullptr : &tensors_[found->second];
}

void CheckpointReader::read(const CheckpointTensor& tensor, std::span<const std::int64_t> offset,
                            std::span<const std::int64_t> extent, std::byte* out) const {
  for (const auto& slice : tensor.slices) {
    const Safetensors& file = *open_.at(slice.file);
    copy_shared(file.data(*file.find(slice.key)).data(), slice.offset, slice.shape, out, offset, extent,
                dtype_size(tensor.dtype));
  }
}

void CheckpointReader::read_all(const CheckpointTensor& tensor, std::byte* out) const {
  read(tensor, std::vector<std::int64_t>(tensor.shape.size(), 0), tensor.shape, out);
}

bool CheckpointReader::has(const std::string& file) const {
  return std::any_of(files_.begin(), files_.end(), [&](const auto& f) { return f.name == file; });
}

std::vector<std::string> CheckpointReader::other_files() const {
  std::vector<std::string> names;
  for (const auto& file : files_)
    if (!file.name.ends_with(".safetensors")) names.push_back(file.name);
  return names;
}

std::string CheckpointReader::text(const std::string& file) const {
  require(has(file), "{}: holds no {}", directory_.string(), file);
  return read_file(directory_ / file);
}

}  // namespace sinew
