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
  // Units [first, last), none: first == last; `end`: of those left before.
  struct Claim {
    index_t first = 0, last = 0, end = 0;
    explicit operator bool() const { return first < last; }
  };

  void set(index_t first, index_t end) {
    word_.store(static_cast<std::uint64_t>(first) << 32 | static_cast<std::uint64_t>(end),
                std::memory_order_relaxed);
  }
  // A third of what is left, from either end: each claim stops the core until all its stores are done, 0.4
  // us, and others can still take the rest.
  Claim front() { return claim(true); }
  Claim back() { return claim(false); }

 private:
  Claim claim(bool front) {
    std::uint64_t word = word_.load(std::memory_order_relaxed);
    for (;;) {
      const auto first = static_cast<index_t>(word >> 32), last = static_cast<index_t>(word & 0xffffffffU);
      if (first >= last) return {};
      const index_t count = (last - first + 2) / 3;
      const auto taken = static_cast<std::uint64_t>(count);
      if (word_.compare_exchange_weak(word, front ? word + (taken << 32) : word - taken,
                                      std::memory_order_relaxed))
        return front ? Claim{first, first + count, last} : Claim{last - count, last, last};
    }
  }
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

// body(first, last, next) for ranges of units that cover [0, count), on the team; `next` is the unit that the
// same thread takes then, or -1 where that is not known. split(share): the unit where this share of the work
// begins.
template <class Split, class Body>
void stretched_tasks(index_t count, const Split& split, const Body& body) {
  constexpr int kMostThreads = 64;
  const int threads = std::min(loop_threads(), kMostThreads);
  if (threads == 1 || count < 2 || inside_team()) return body(index_t{0}, count, index_t{-1});
  struct Crew {
    const Body& body;
    const int threads;
    std::atomic<int> arrived{0};
    Stretch stretches[kMostThreads]{};

    void work() {
      const int self = arrived.fetch_add(1, std::memory_order_relaxed);
      if (self < threads)
        while (const Stretch::Claim claim = stretches[self].front())
          body(claim.first, claim.last, claim.last < claim.end ? claim.last : -1);
      for (int k = 1; k <= threads; ++k)
        while (const Stretch::Claim claim = stretches[(self + k) % threads].back())
          body(claim.first, claim.last, index_t{-1});
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
