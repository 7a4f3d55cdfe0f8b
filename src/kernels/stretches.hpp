// Work that memory sets the pace of: each thread takes one long stretch of the list, since every jump in
// memory costs a core one or two microseconds, and the end of another's when its own is done.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "base/loop_threads.hpp"
#include "base/team.hpp"
#include "kernels/unit_list.hpp"

namespace sinew {

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

// The first unit of all items that begins at or behind `share` of all bytes; unit_bytes(item): of each unit
// of one.
template <class Items, class Units, class Bytes>
index_t split_units(const Items& items, const Units& units_of, const Bytes& unit_bytes, double share) {
  double left = 0;
  for (const auto& item : items) left += static_cast<double>(units_of(item) * unit_bytes(item)) * share;
  index_t before = 0;
  for (const auto& item : items) {
    const auto whole = static_cast<index_t>(left / static_cast<double>(unit_bytes(item)));
    if (whole < units_of(item)) return before + whole;
    left -= static_cast<double>(units_of(item) * unit_bytes(item));
    before += units_of(item);
  }
  return before;
}

// body(unit, next) for every unit in [0, count) on the team; `next` is what the same thread takes then, or -1
// where that is not known. split(share): the unit where this share of the work begins.
template <class Split, class Body>
void stretched_tasks(index_t count, const Split& split, const Body& body) {
  constexpr int kMostThreads = 64;
  const int threads = std::min(loop_threads(), kMostThreads);
  if (threads == 1 || count < 2 || inside_team()) {
    for (index_t i = 0; i < count; ++i) body(i, i + 1 < count ? i + 1 : -1);
    return;
  }
  struct Crew {
    const Body& body;
    const int threads;
    std::atomic<int> arrived{0};
    Stretch stretches[kMostThreads]{};

    void work() {
      const int self = arrived.fetch_add(1, std::memory_order_relaxed);
      index_t end = 0;
      if (self < threads)
        for (index_t i; (i = stretches[self].front(end)) >= 0;) body(i, i + 1 < end ? i + 1 : -1);
      for (int k = 1; k <= threads; ++k)
        for (index_t i; (i = stretches[(self + k) % threads].back()) >= 0;) body(i, index_t{-1});
    }
  } crew{.body = body, .threads = threads};
  index_t first = 0;
  for (int t = 0; t < threads; ++t) {
    const index_t end = t + 1 == threads ? count : split(static_cast<double>(t + 1) / threads);
    crew.stretches[t].set(first, std::max(first, end));
    first = std::max(first, end);
  }
  run_team([](void* context) { static_cast<Crew*>(context)->work(); }, &crew);
}

}  // namespace sinew
