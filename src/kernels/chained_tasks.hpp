// Tasks that know what comes after them, so that they can have it fetched.
#pragma once

#include <atomic>

#include "base/team.hpp"

namespace sinew {

// body(task, next) for every task in [0, count) on the team, handed out in rising order; `next` is the task
// that the same thread does then, or -1. A thread that finds nothing left takes what another one has chosen
// as its next and not begun: cores are not equally fast, and the end would wait for two tasks of the slowest.
template <class Body>
void chained_tasks(std::ptrdiff_t count, const Body& body) {
  if (count <= 1 || inside_team()) {
    for (std::ptrdiff_t i = 0; i < count; ++i) body(i, i + 1 < count ? i + 1 : -1);
    return;
  }
  constexpr int kChoosing = 32;  // threads that choose their next task
  struct Tasks {
    const Body& body;
    const std::ptrdiff_t count;
    std::atomic<std::ptrdiff_t> next{0};
    std::atomic<int> arrived{0};
    struct alignas(64) Chosen {
      std::atomic<std::ptrdiff_t> task{-1};
      std::ptrdiff_t take() { return task.load() < 0 ? -1 : task.exchange(-1); }
    } chosen[kChoosing]{};

    std::ptrdiff_t take() {
      const std::ptrdiff_t i = next.fetch_add(1, std::memory_order_relaxed);
      return i < count ? i : -1;
    }
    void work() {
      const int self = arrived.fetch_add(1, std::memory_order_relaxed);
      for (std::ptrdiff_t i = take(); i >= 0;) {
        const std::ptrdiff_t then = self < kChoosing ? take() : -1;
        if (then >= 0) chosen[self].task.store(then);
        body(i, then);
        i = then >= 0 ? chosen[self].take() : take();
      }
      for (Chosen& other : chosen)
        if (const std::ptrdiff_t i = other.take(); i >= 0) body(i, -1);
    }
  } tasks{.body = body, .count = count};
  run_team([](void* context) { static_cast<Tasks*>(context)->work(); }, &tasks);
}

}  // namespace sinew
