#include "engine/packing.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <vector>

#include "base/error.hpp"
#include "base/team.hpp"
#include "base/text.hpp"
#include "kernels/quant_tables.hpp"

namespace sinew::engine {
namespace {

constexpr index_t kTilesAtOnce = 8;

std::size_t aligned(std::size_t bytes) { return (bytes + 63) / 64 * 64; }

// Pages of a map of a file may go: they are read again if they are wanted.
void give_back(const WeightMatrix& w) {
  if (w.owner != nullptr) return;  // not mapped
  const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto first = (reinterpret_cast<std::uintptr_t>(w.data) + page - 1) / page * page;
  const auto last = (reinterpret_cast<std::uintptr_t>(w.data) + w.bytes()) / page * page;
  if (first < last) ::madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
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

std::size_t pack_model(Model& model) {
  std::vector<WeightMatrix*> list;
  std::size_t bytes = 0;
  each_matrix(model, [&](WeightMatrix& w) {
    if (&w == &model.embedding || w.packed != nullptr || !can_pack(w) || stays_on_disk(model, w)) return;
    list.push_back(&w);
  });
  // A head that is the embedding is read row by row as that, and packed as this.
  if (model.head.data == model.embedding.data && model.head.packed == nullptr && can_pack(model.head))
    list.push_back(&model.head);
  for (const WeightMatrix* w : list) bytes += aligned(packed_bytes(w->format, w->rows, w->cols));
  if (list.empty()) return 0;
  const std::shared_ptr<std::byte> memory = packed_memory(bytes);
  std::size_t at = 0;
  for (WeightMatrix* w : list) {
    const auto packed = std::make_shared<PackedBlocks>();
    std::byte* const out = memory.get() + at;
    packed->matrix = {w->format, w->rows, w->cols, out};
    packed->memory = memory;
    const index_t tiles = (w->rows + kPackedRows - 1) / kPackedRows;
    const index_t tile_bytes = packed_layout(w->format).tile_bytes(w->cols);
    parallel_tasks((tiles + kTilesAtOnce - 1) / kTilesAtOnce, [&](index_t i) {
      const index_t first = i * kTilesAtOnce;
      pack_tiles(w->format, w->data, w->rows, w->cols, first, std::min(kTilesAtOnce, tiles - first),
                 out + first * tile_bytes);
    });
    at += aligned(packed->bytes());
    w->packed = packed;
    if (w->data != model.embedding.data) give_back(*w);
  }
  return bytes;
}

}  // namespace sinew::engine
