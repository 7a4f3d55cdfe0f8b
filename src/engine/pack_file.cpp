#include "engine/pack_file.hpp"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <set>

#include "base/error.hpp"
#include "base/map_pages.hpp"
#include "base/team.hpp"
#include "kernels/packed.hpp"

namespace sinew::engine {
namespace {

// The file: the packed matrices, then the checksums of every kChunk bytes of them, then the end.
constexpr std::size_t kChunk = std::size_t{4} << 20;
constexpr char kMagic[8] = {'s', 'i', 'n', 'e', 'w', 'p', 'k', '1'};

struct End {
  Hash128 key;
  std::uint64_t bytes;  // of the matrices
  std::uint64_t sum;    // of the checksums and of what stands before in here
  char magic[8];
};
static_assert(sizeof(End) == 40);

std::size_t chunks(std::size_t bytes) { return (bytes + kChunk - 1) / kChunk; }

std::uint64_t sum_of(const std::vector<std::uint64_t>& sums, const End& end) {
  Hasher hash;
  hash.update(sums.data(), sums.size() * sizeof(std::uint64_t));
  hash.update(&end, offsetof(End, sum));
  return hash.digest();
}

// Changes whenever packing lays the same blocks out in another way.
std::uint64_t layout_of(BlockFormat format) {
  constexpr index_t kCols = 512;
  std::vector<std::byte> blocks(block_bytes(format, kCols) * kPackedRows);
  for (std::size_t i = 0; i < blocks.size(); ++i) blocks[i] = static_cast<std::byte>(i * 37 + i / 251);
  std::vector<std::byte> out(packed_bytes(format, kPackedRows, kCols));
  pack_tiles(format, blocks.data(), kPackedRows, kCols, 0, 1, out.data());
  return xxh3(out.data(), out.size());
}

void describe_file(const MappedFile& file, std::string& text) {
  constexpr std::size_t kBeginning = std::size_t{4} << 20;
  struct stat info {};
  if (::stat(file.path().c_str(), &info) != 0) return;
  text += fmt::format("{} {} {}.{} {}\n", file.path().filename().string(), file.size(), info.st_mtim.tv_sec,
                      info.st_mtim.tv_nsec, hex64(xxh3(file.data(), std::min(file.size(), kBeginning))));
}

}  // namespace

std::optional<PackPlace> pack_place(const Model& model, std::span<WeightMatrix* const> matrices,
                                    std::size_t bytes) {
  if (model.mapped.empty() || matrices.empty()) return std::nullopt;
  std::string text = "1\n";
  for (const MappedFile* file : model.mapped) describe_file(*file, text);
  std::set<BlockFormat> formats;
  for (const WeightMatrix* w : matrices) {
    formats.insert(w->format);
    text += fmt::format("{} {} {} {}\n", w->name, block_info(w->format).name, w->rows, w->cols);
  }
  for (const BlockFormat format : formats)
    text += fmt::format("{} {}\n", block_info(format).name, hex64(layout_of(format)));
  return PackPlace{model.mapped[0]->path().string() + ".sinew-packed", bytes,
                   xxh3_128(text.data(), text.size())};
}

std::shared_ptr<const MappedFile> open_pack_file(const PackPlace& place) {
  std::error_code none;
  const std::size_t count = chunks(place.bytes);
  const std::size_t size = place.bytes + count * sizeof(std::uint64_t) + sizeof(End);
  if (std::filesystem::file_size(place.path, none) != size || none) return nullptr;
  std::shared_ptr<const MappedFile> file;
  try {
    file = std::make_shared<MappedFile>(place.path);
  } catch (const IoError&) {
    return nullptr;
  }
  if (file->size() != size) return nullptr;
  ask_for_huge_pages(file->data(), file->size());
  std::vector<std::uint64_t> sums(count);
  End end{};
  std::memcpy(sums.data(), file->data() + place.bytes, count * sizeof(std::uint64_t));
  std::memcpy(&end, file->data() + size - sizeof end, sizeof end);
  if (std::memcmp(end.magic, kMagic, sizeof kMagic) != 0 || end.key != place.key ||
      end.bytes != place.bytes || end.sum != sum_of(sums, end))
    return nullptr;
  std::atomic<bool> whole{true};
  parallel_tasks(static_cast<std::ptrdiff_t>(count), [&](std::ptrdiff_t i) {
    const std::size_t first = static_cast<std::size_t>(i) * kChunk;
    if (xxh3(file->data() + first, std::min(kChunk, place.bytes - first)) !=
        sums[static_cast<std::size_t>(i)])
      whole = false;
  });
  return whole ? file : nullptr;
}

PackFileWriter::PackFileWriter(const PackPlace& place) : place_(place), file_(place.path) {
  chunk_.reserve(kChunk);
}

void PackFileWriter::close_chunk() {
  sums_.push_back(xxh3(chunk_.data(), chunk_.size()));
  file_.write(chunk_.data(), chunk_.size());
  chunk_.clear();
}

void PackFileWriter::write(const std::byte* data, std::size_t size) {
  while (size > 0) {
    const std::size_t part = std::min(size, kChunk - chunk_.size());
    chunk_.insert(chunk_.end(), data, data + part);
    data += part;
    size -= part;
    if (chunk_.size() == kChunk) close_chunk();
  }
}

void PackFileWriter::commit() {
  if (!chunk_.empty()) close_chunk();
  ensure(file_.size() == place_.bytes, "{} of {} bytes of packed weights", file_.size(), place_.bytes);
  End end{place_.key, place_.bytes, 0, {}};
  std::memcpy(end.magic, kMagic, sizeof kMagic);
  end.sum = sum_of(sums_, end);
  file_.write(sums_.data(), sums_.size() * sizeof(std::uint64_t));
  file_.write(&end, sizeof end);
  file_.commit();
}

}  // namespace sinew::engine
