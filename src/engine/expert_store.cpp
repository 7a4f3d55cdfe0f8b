#include "engine/expert_store.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <vector>

#include "base/async_reader.hpp"
#include "base/clock.hpp"
#include "base/error.hpp"
#include "base/index.hpp"
#include "base/team.hpp"
#include "base/text.hpp"
#include "engine/model.hpp"
#include "engine/packing.hpp"

namespace sinew::engine {
namespace {

constexpr std::size_t kAlign = AsyncReader::kAlign;
constexpr index_t kStaging = 24;     // experts that are being read at once
constexpr index_t kTilesAtOnce = 8;  // that a thread packs
constexpr double kHalfLife = 2000;   // requests after which a use counts half

std::size_t up(std::size_t n, std::size_t step) { return (n + step - 1) / step * step; }

// Where one matrix lies: pages of a file, and its first byte in them.
struct Extent {
  int file = 0;
  std::uint64_t offset = 0;  // at a page
  std::size_t bytes = 0;     // whole pages
  std::size_t skip = 0;
};

struct Expert {
  Extent part[3];  // gate, up, down
  double score = 0;
  std::int64_t scored_at = 0;
  std::int32_t slot = -1;
};

enum class State { empty, reading, ready };
struct Slot {
  State state = State::empty;
  index_t layer = -1;
  std::int32_t expert = -1;
  std::int32_t staging = -1;
  int reads = 0;  // that are not over
  bool held = false;
  std::byte* memory = nullptr;
  SwigluWeights weights;
};

std::shared_ptr<std::byte> map_memory(std::size_t bytes) {
  void* const map = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  require(map != MAP_FAILED, "no memory for {} of experts: give a smaller --memory",
          human_bytes(static_cast<double>(bytes)));
  ::madvise(map, bytes, MADV_HUGEPAGE);
  return {static_cast<std::byte*>(map), [map, bytes](std::byte*) { ::munmap(map, bytes); }};
}

// What a matrix takes in memory: repacked where that is how it is computed with.
std::size_t held_bytes(const WeightMatrix& w) {
  return up(can_pack(w) ? packed_bytes(w.format, w.rows, w.cols) : w.bytes(), 64);
}

WeightMatrix* const* parts(SwigluWeights& w, WeightMatrix* (&out)[3]) {
  out[0] = &w.gate, out[1] = &w.up, out[2] = &w.down;
  return out;
}

}  // namespace

struct ExpertStore::Impl {
  AsyncReader reader{static_cast<unsigned>(3 * kStaging)};
  std::map<const MappedFile*, int> files;
  std::vector<std::vector<Expert>> experts;  // [layer][expert]; empty for layers without
  std::vector<Slot> slots;
  std::vector<std::int32_t> free_staging, requested;
  std::shared_ptr<std::byte> slot_memory, staging_memory;
  std::size_t slot_bytes = 0, staging_bytes = 0;
  std::uint64_t total = 0;
  std::int64_t now = 0;
  ExpertCounts counts;

  Extent find(const Model& model, const WeightMatrix& w) {
    for (const MappedFile* file : model.mapped) {
      if (w.data < file->data() || w.data >= file->data() + file->size()) continue;
      const auto found = files.find(file);
      const int number = found != files.end() ? found->second : reader.open(file->path());
      files.emplace(file, number);
      const auto at = static_cast<std::uint64_t>(w.data - file->data());
      Extent extent{number, at / kAlign * kAlign, 0, static_cast<std::size_t>(at % kAlign)};
      extent.bytes = up(extent.skip + w.bytes(), kAlign);
      return extent;
    }
    fail("expert '{}' does not lie in a file", w.name);
  }

  double score(const Expert& e) const {
    return e.score * std::exp2(-static_cast<double>(now - e.scored_at) / kHalfLife);
  }
  void use(Expert& e) {
    e.score = score(e) + 1;
    e.scored_at = now;
  }
  Expert& of(const Slot& slot) { return experts[size(slot.layer)][static_cast<std::size_t>(slot.expert)]; }

  // A slot to read into: an empty one, else the least used that nobody needs; -1 when there is none, or none
  // less used than `score_of_new`.
  std::int32_t take_slot(double score_of_new) {
    std::int32_t best = -1;
    double least = score_of_new;
    for (std::size_t i = 0; i < slots.size(); ++i) {
      const Slot& slot = slots[i];
      if (slot.held || slot.state == State::reading) continue;
      if (slot.state == State::empty) return static_cast<std::int32_t>(i);
      const double s = score(of(slot));
      if (s < least) least = s, best = static_cast<std::int32_t>(i);
    }
    if (best >= 0) of(slots[static_cast<std::size_t>(best)]).slot = -1;
    return best;
  }

  bool begin(index_t layer, std::int32_t number, double score_of_new) {
    Expert& e = experts[size(layer)][static_cast<std::size_t>(number)];
    if (free_staging.empty()) return false;
    const std::int32_t at = take_slot(score_of_new);
    if (at < 0) return false;
    Slot& slot = slots[static_cast<std::size_t>(at)];
    slot.state = State::reading;
    slot.layer = layer;
    slot.expert = number;
    slot.staging = free_staging.back();
    free_staging.pop_back();
    slot.reads = 3;
    e.slot = at;
    std::byte* to = staging(slot);
    for (const Extent& part : e.part) {
      reader.start(part.file, part.offset, part.bytes, to, static_cast<std::uint64_t>(at));
      counts.bytes_read += part.bytes;
      to += part.bytes;
    }
    return true;
  }

  std::byte* staging(const Slot& slot) const {
    return staging_memory.get() + static_cast<std::size_t>(slot.staging) * staging_bytes;
  }

  // One read is over; the last of an expert puts it in its place.
  bool take_one(bool block) {
    const std::int64_t tag = reader.wait(block);
    if (tag < 0) return false;
    Slot& slot = slots[static_cast<std::size_t>(tag)];
    if (--slot.reads > 0) return true;
    place(slot);
    free_staging.push_back(slot.staging);
    slot.staging = -1;
    slot.state = State::ready;
    return true;
  }

  void place(Slot& slot) {
    const Expert& e = of(slot);
    slot.weights = (*originals)[size(slot.layer)].moe->experts[static_cast<std::size_t>(slot.expert)];
    const std::byte* from = staging(slot);
    std::byte* to = slot.memory;
    WeightMatrix* matrix[3];
    parts(slot.weights, matrix);
    for (int i = 0; i < 3; ++i) {
      WeightMatrix& w = *matrix[i];
      const std::byte* const stored = from + e.part[i].skip;
      if (can_pack(w)) {
        const auto packed = std::make_shared<PackedBlocks>();
        packed->matrix = {w.format, w.rows, w.cols, to};
        const index_t tiles = (w.rows + kPackedRows - 1) / kPackedRows;
        const index_t tile_bytes = packed_layout(w.format).tile_bytes(w.cols);
        parallel_tasks((tiles + kTilesAtOnce - 1) / kTilesAtOnce, [&](index_t t) {
          const index_t first = t * kTilesAtOnce;
          pack_tiles(w.format, stored, w.rows, w.cols, first, std::min(kTilesAtOnce, tiles - first),
                     to + first * tile_bytes);
        });
        w.packed = packed;
      } else {
        std::memcpy(to, stored, w.bytes());
        w.data = to;
      }
      to += held_bytes(w);
      from += e.part[i].bytes;
    }
  }

  const std::vector<Layer>* originals = nullptr;
};

ExpertStore::ExpertStore(Model& model, std::uint64_t bytes) : impl_(std::make_unique<Impl>()) {
  Impl& s = *impl_;
  s.originals = &model.layers;
  s.experts.resize(model.layers.size());
  for (std::size_t l = 0; l < model.layers.size(); ++l) {
    if (!model.layers[l].moe) continue;
    for (SwigluWeights& w : model.layers[l].moe->experts) {
      Expert expert;
      WeightMatrix* matrix[3];
      parts(w, matrix);
      std::size_t held = 0, read = 0;
      for (int i = 0; i < 3; ++i) {
        ensure(matrix[i]->packed == nullptr && matrix[i]->scales == nullptr,
               "an expert that is not as in its file");
        expert.part[i] = s.find(model, *matrix[i]);
        held += held_bytes(*matrix[i]);
        read += expert.part[i].bytes;
        s.total += matrix[i]->bytes();
      }
      s.slot_bytes = std::max(s.slot_bytes, up(held, kAlign));
      s.staging_bytes = std::max(s.staging_bytes, read);
      s.experts[l].push_back(expert);
    }
  }
  require(s.slot_bytes > 0, "the model has no routed experts to keep on disk");
  const std::uint64_t staging = kStaging * s.staging_bytes;
  const auto least =
      static_cast<std::uint64_t>(model.config.moe.num_experts_per_tok + 1) * s.slot_bytes + staging;
  require(bytes >= least, "{} of memory for experts; at least {} are needed",
          human_bytes(static_cast<double>(bytes)), human_bytes(static_cast<double>(least)));
  const std::uint64_t count = std::min<std::uint64_t>(
      (bytes - staging) / s.slot_bytes, model.layers.size() * size(model.config.moe.n_routed_experts));
  s.slot_memory = map_memory(count * s.slot_bytes);
  s.staging_memory = map_memory(staging);
  s.slots.resize(count);
  for (std::size_t i = 0; i < count; ++i) s.slots[i].memory = s.slot_memory.get() + i * s.slot_bytes;
  for (index_t i = kStaging; i-- > 0;) s.free_staging.push_back(static_cast<std::int32_t>(i));
}

ExpertStore::~ExpertStore() = default;

index_t ExpertStore::capacity() const { return static_cast<index_t>(impl_->slots.size()); }
const ExpertCounts& ExpertStore::counts() const { return impl_->counts; }
std::uint64_t ExpertStore::expert_bytes() const { return impl_->total; }
const char* ExpertStore::way() const { return impl_->reader.way(); }

void ExpertStore::prefetch(index_t layer, std::span<const std::int32_t> experts) {
  Impl& s = *impl_;
  while (s.reader.under_way() > 0 && s.take_one(false)) {
  }
  for (const std::int32_t number : experts) {
    Expert& e = s.experts[size(layer)][static_cast<std::size_t>(number)];
    // Not at the cost of an expert that has been used more, counting this likely use.
    if (e.slot < 0 && s.begin(layer, number, s.score(e) + 1)) ++s.counts.prefetched;
  }
}

void ExpertStore::request(index_t layer, std::span<const std::int32_t> experts) {
  Impl& s = *impl_;
  ensure(static_cast<index_t>(experts.size()) <= capacity(), "{} experts at once", experts.size());
  s.requested.clear();
  ++s.now;
  while (s.reader.under_way() > 0 && s.take_one(false)) {
  }
  for (const std::int32_t number : experts) {  // first, so that none of them makes room for another
    Expert& e = s.experts[size(layer)][static_cast<std::size_t>(number)];
    s.use(e);
    if (e.slot < 0) continue;
    Slot& slot = s.slots[static_cast<std::size_t>(e.slot)];
    slot.held = true;
    ++(slot.state == State::ready ? s.counts.hits : s.counts.foreseen);
    s.requested.push_back(e.slot);
  }
  const double start = clock_seconds();
  for (const std::int32_t number : experts) {
    Expert& e = s.experts[size(layer)][static_cast<std::size_t>(number)];
    if (e.slot >= 0) continue;
    ++s.counts.misses;
    while (!s.begin(layer, number, 1e300)) s.take_one(true);  // until a place is free
    s.slots[static_cast<std::size_t>(e.slot)].held = true;
    s.requested.push_back(e.slot);
  }
  s.counts.wait_seconds += clock_seconds() - start;
}

void ExpertStore::hold() {
  Impl& s = *impl_;
  const double start = clock_seconds();
  for (const std::int32_t slot : s.requested)
    while (s.slots[static_cast<std::size_t>(slot)].state != State::ready) s.take_one(true);
  s.counts.wait_seconds += clock_seconds() - start;
}

const SwigluWeights* ExpertStore::weights(index_t layer, std::int32_t expert) const {
  const Impl& s = *impl_;
  const std::int32_t slot = s.experts[size(layer)][static_cast<std::size_t>(expert)].slot;
  ensure(slot >= 0 && s.slots[static_cast<std::size_t>(slot)].held, "expert {} of layer {} is not held",
         expert, layer);
  return &s.slots[static_cast<std::size_t>(slot)].weights;
}

void ExpertStore::release() {
  for (const std::int32_t slot : impl_->requested) impl_->slots[static_cast<std::size_t>(slot)].held = false;
  impl_->requested.clear();
}

}  // namespace sinew::engine
