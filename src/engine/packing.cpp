#include "engine/packing.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <filesystem>
#include <span>
#include <vector>

#include "base/error.hpp"
#include "base/log.hpp"
#include "base/map_pages.hpp"
#include "base/team.hpp"
#include "base/text.hpp"
#include "engine/pack_file.hpp"
#include "kernels/quant_tables.hpp"

namespace sinew::engine {
namespace {

constexpr index_t kTilesAtOnce = 8;

std::size_t aligned(std::size_t bytes) { return (bytes + 63) / 64 * 64; }

void give_back(const WeightMatrix& w) {
  if (w.owner == nullptr) give_back_pages(w.data, w.bytes());  // mapped
}

// Whether a matrix belongs to the routed experts of a model's store.
bool stays_on_disk(const Model& model, const WeightMatrix& w) {
  if (model.store == nullptr) return false;
  const auto at = reinterpret_cast<std::uintptr_t>(&w);
  for (const Layer& layer : model.layers) {
    if (!layer.moe) continue;
    const auto first = reinterpret_cast<std::uintptr_t>(layer.moe->experts.data());
    if (at >= first && at < first + layer.moe->experts.size() * sizeof(SwigluWeights)) return true;
  }
  return false;
}

}  // namespace

bool can_pack(const WeightMatrix& w) {
  return quant_kernels(active_isa()) != nullptr && w.storage == Storage::blocks && packable(w.format) &&
         w.cols % packed_layout(w.format).elements == 0;
}

std::shared_ptr<std::byte> packed_memory(std::size_t bytes) {
  constexpr std::size_t kHuge = std::size_t{2} << 20;
  const std::size_t size = (bytes + kHuge - 1) / kHuge * kHuge + kHuge;
  void* const map = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  require(map != MAP_FAILED, "no memory for {} of repacked weights", human_bytes(static_cast<double>(bytes)));
  ::madvise(map, size, MADV_HUGEPAGE);
  auto* const first = static_cast<std::byte*>(map);
  const std::size_t skip = (kHuge - reinterpret_cast<std::uintptr_t>(map) % kHuge) % kHuge;
  return {first + skip, [map, size](std::byte*) { ::munmap(map, size); }};
}

namespace {

// One matrix into `out`, given in pieces of at most `most` bytes (of whole tiles): after each, done(bytes) is
// called and the next one begins at what it returns.
template <class Done>
void pack_matrix(const WeightMatrix& w, std::size_t most, std::byte* out, const Done& done) {
  const index_t tiles = (w.rows + kPackedRows - 1) / kPackedRows;
  const index_t tile_bytes = packed_layout(w.format).tile_bytes(w.cols);
  const index_t at_once = std::max<index_t>(1, static_cast<index_t>(most) / tile_bytes);
  for (index_t begin = 0; begin < tiles; begin += at_once) {
    const index_t count = std::min(at_once, tiles - begin);
    parallel_tasks((count + kTilesAtOnce - 1) / kTilesAtOnce, [&](index_t i) {
      const index_t first = i * kTilesAtOnce;
      pack_tiles(w.format, w.data, w.rows, w.cols, begin + first, std::min(kTilesAtOnce, count - first),
                 out + first * tile_bytes);
    });
    out = done(static_cast<std::size_t>(count * tile_bytes));
  }
}

std::size_t packed_size(const WeightMatrix& w) { return aligned(packed_bytes(w.format, w.rows, w.cols)); }

void attach(std::span<WeightMatrix* const> list, const std::byte* data,
            const std::shared_ptr<const void>& memory) {
  for (WeightMatrix* w : list) {
    const auto packed = std::make_shared<PackedBlocks>();
    packed->matrix = {w->format, w->rows, w->cols, data};
    packed->memory = memory;
    w->packed = packed;
    data += packed_size(*w);
  }
}

void write_file(const Model& model, const PackPlace& place, std::span<WeightMatrix* const> list) {
  constexpr std::size_t kPiece = std::size_t{32} << 20;
  PackFileWriter writer(place);
  std::vector<std::byte> piece;
  for (const WeightMatrix* w : list) {
    const std::size_t bytes = packed_bytes(w->format, w->rows, w->cols);
    const auto tile = static_cast<std::size_t>(packed_layout(w->format).tile_bytes(w->cols));
    piece.resize(std::max({piece.size(), std::min(bytes, kPiece), tile}));
    pack_matrix(*w, piece.size(), piece.data(), [&](std::size_t done) {
      writer.write(piece.data(), done);
      return piece.data();
    });
    const std::byte zeros[64] = {};
    writer.write(zeros, packed_size(*w) - bytes);
    if (w->data != model.embedding.data) give_back(*w);
  }
  check_mapped_files();
  writer.commit();
}

// True when the packed weights now lie in a mapped file.
bool use_file(Model& model, std::span<WeightMatrix* const> list, std::size_t bytes, PackFile way) {
  const auto place = pack_place(model, list, bytes);
  if (!place) return false;
  auto file = open_pack_file(*place);
  if (file == nullptr && way == PackFile::write) {
    std::error_code none;
    const auto space =
        std::filesystem::space(place->path.parent_path().empty() ? "." : place->path.parent_path(), none);
    if (none || space.available < bytes + bytes / 8) {
      log::info("no room for {} of repacked weights in {}: they are not kept",
                human_bytes(static_cast<double>(bytes)), place->path.string());
      return false;
    }
    log::info("repacking the weights once, into {} ({})", place->path.string(),
              human_bytes(static_cast<double>(bytes)));
    try {
      write_file(model, *place, list);
      file = open_pack_file(*place);
    } catch (const IoError& error) {
      log::info("{}: repacked weights are not kept", error.what());
    }
  }
  if (file == nullptr) return false;
  attach(list, file->data(), file);
  return true;
}

}  // namespace

std::size_t pack_model(Model& model, const PackOptions& options) {
  std::vector<WeightMatrix*> list;
  std::size_t bytes = 0;
  each_matrix(model, [&](WeightMatrix& w) {
    if (&w == &model.embedding || w.packed != nullptr || !can_pack(w) || stays_on_disk(model, w)) return;
    list.push_back(&w);
  });
  // A head that is the embedding is read row by row as that, and packed as this.
  if (model.head.data == model.embedding.data && model.head.packed == nullptr && can_pack(model.head))
    list.push_back(&model.head);
  for (const WeightMatrix* w : list) bytes += packed_size(*w);
  if (list.empty()) return 0;
  if (options.file != PackFile::none && bytes >= options.least && model.store == nullptr &&
      use_file(model, list, bytes, options.file))
    return bytes;
  const std::shared_ptr<std::byte> memory = packed_memory(bytes);
  std::byte* out = memory.get();
  for (const WeightMatrix* w : list) {
    std::byte* const next = out + packed_size(*w);
    pack_matrix(*w, packed_size(*w), out, [&](std::size_t) { return next; });
    out = next;
    if (w->data != model.embedding.data) give_back(*w);
  }
  attach(list, memory.get(), memory);
  return bytes;
}

}  // namespace sinew::engine
