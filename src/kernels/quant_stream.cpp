#include "kernels/quant_stream.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "base/loop_threads.hpp"
#include "base/team.hpp"
#include "kernels/unit_list.hpp"

namespace sinew {
namespace {

constexpr int kMostThreads = 64;

std::size_t size(index_t n) { return static_cast<std::size_t>(n); }
index_t tiles(const PackedMatrix& w) { return units(w.rows, kPackedRows); }
index_t units_of(const FewProduct& p) { return units(tiles(*p.w), kFewTiles); }
index_t tile_bytes(const PackedMatrix& w) { return packed_layout(w.format).tile_bytes(w.cols); }

// Up to kFewTiles tiles of one product.
struct Unit {
  const FewProduct* product;
  index_t tile, count;
  const std::byte* data() const { return product->w->data + tile * tile_bytes(*product->w); }
};

// The units of all products, numbered through.
struct List {
  std::span<const FewProduct> products;

  index_t count() const { return count_units(products, units_of); }
  Unit at(index_t number) const {
    const auto [p, i] = find_unit(products, units_of, number);
    return {p, i * kFewTiles, std::min(kFewTiles, tiles(*p->w) - i * kFewTiles)};
  }
  // The first unit that begins at or behind `share` of all bytes.
  index_t split(double share) const {
    double bytes = 0;
    for (const FewProduct& p : products) bytes += static_cast<double>(tiles(*p.w) * tile_bytes(*p.w));
    double left = bytes * share;
    index_t before = 0;
    for (const FewProduct& p : products) {
      const auto unit = static_cast<double>(kFewTiles * tile_bytes(*p.w));
      const auto whole = static_cast<index_t>(left / unit);
      if (whole < units_of(p)) return before + whole;
      left -= static_cast<double>(tiles(*p.w) * tile_bytes(*p.w));
      before += units_of(p);
    }
    return before;
  }
};

// Units [first, end) that nobody has taken: the owner takes from the front, others from the back.
class alignas(64) Stretch {
 public:
  void set(index_t first, index_t end) {
    word_.store(static_cast<std::uint64_t>(first) << 32 | static_cast<std::uint64_t>(end),
                std::memory_order_relaxed);
  }
  // A unit, or -1; `end`: of those left.
  index_t front(index_t& end) {
    std::uint64_t word = word_.load(std::memory_order_relaxed);
    while (first(word) < last(word))
      if (word_.compare_exchange_weak(word, word + (std::uint64_t{1} << 32), std::memory_order_relaxed)) {
        end = last(word);
        return first(word);
      }
    return -1;
  }
  index_t back() {
    std::uint64_t word = word_.load(std::memory_order_relaxed);
    while (first(word) < last(word))
      if (word_.compare_exchange_weak(word, word - 1, std::memory_order_relaxed)) return last(word) - 1;
    return -1;
  }

 private:
  static index_t first(std::uint64_t word) { return static_cast<index_t>(word >> 32); }
  static index_t last(std::uint64_t word) { return static_cast<index_t>(word & 0xffffffffU); }
  std::atomic<std::uint64_t> word_{0};
};

void store_rows(const FewProduct& p, const Unit& unit, index_t token, index_t tokens, const float* out,
                index_t ld) {
  const index_t row = unit.tile * kPackedRows, columns = std::min(unit.count * kPackedRows, p.w->rows - row);
  for (index_t t = 0; t < tokens; ++t) {
    float* const to = p.y + (token + t) * p.ldy + row;
    const float* const from = out + t * ld;
    if (p.bias == nullptr)
      std::memcpy(to, from, size(columns) * sizeof(float));
    else
      for (index_t i = 0; i < columns; ++i) to[i] = from[i] + p.bias[row + i];
  }
}

// `next`: what this thread reads then.
void work_on(const QuantKernels& kernels, const Unit& unit, const std::byte* next) {
  const FewProduct& p = *unit.product;
  constexpr index_t ld = kFewTiles * kPackedRows;
  alignas(64) float out[kFewRows * ld];
  for (index_t t = 0; t < p.tokens; t += kFewRows) {
    const index_t tokens = std::min(kFewRows, p.tokens - t);
    kernels.dot_tiles(p.w->format, unit.data(), unit.count, p.w->cols, p.rows + t, tokens,
                      t + tokens < p.tokens ? unit.data() : next, out, ld);
    store_rows(p, unit, t, tokens, out, ld);
  }
}

struct Crew {
  const QuantKernels& kernels;
  const List list;
  const int threads;
  std::atomic<int> arrived{0};
  Stretch stretches[kMostThreads]{};

  void work() {
    const int self = arrived.fetch_add(1, std::memory_order_relaxed);
    index_t end = 0;
    if (self < threads)
      for (index_t i; (i = stretches[self].front(end)) >= 0;)
        work_on(kernels, list.at(i), i + 1 < end ? list.at(i + 1).data() : nullptr);
    for (int k = 1; k <= threads; ++k)
      for (index_t i; (i = stretches[(self + k) % threads].back()) >= 0;)
        work_on(kernels, list.at(i), nullptr);
  }
};

}  // namespace

void few_products(const QuantKernels& kernels, std::span<const FewProduct> products) {
  const List list{products};
  const index_t count = list.count();
  const int threads = std::min(loop_threads(), kMostThreads);
  if (threads == 1 || count < 2) {
    for (index_t i = 0; i < count; ++i)
      work_on(kernels, list.at(i), i + 1 < count ? list.at(i + 1).data() : nullptr);
    return;
  }
  Crew crew{.kernels = kernels, .list = list, .threads = threads};
  index_t first = 0;
  for (int t = 0; t < threads; ++t) {
    const index_t end = t + 1 == threads ? count : list.split(static_cast<double>(t + 1) / threads);
    crew.stretches[t].set(first, std::max(first, end));
    first = std::max(first, end);
  }
  run_team([](void* context) { static_cast<Crew*>(context)->work(); }, &crew);
}

}  // namespace sinew
