// Tasks that know what comes after them, so that they can have it fetched.
#pragma once

#include <atomic>

#include "base/team.hpp"

namespace sinew {

// body(task, next) for every task in [0, count) on the team, handed out in rising order; `next` is the task
// that the same thread does then, or -1.
template <class Body>
void chained_tasks(std::ptrdiff_t count, const Body& body) {
  if (count <= 1 || inside_team()) {
    for (std::ptrdiff_t i = 0; i < count; ++i) body(i, i + 1 < count ? i + 1 : -1);
    return;
  }
  struct Tasks {
    const Body& body;
    const std::ptrdiff_t count;
    std::atomic<std::ptrdiff_t> next{0};
    std::ptrdiff_t take() { return next.fetch_add(1, std::memory_order_relaxed); }
  } tasks{body, count};
  run_team(
      [](void* context) {
        auto& t = *static_cast<Tasks*>(context);
        for (std::ptrdiff_t i = t.take(); i < t.count;) {
          const std::ptrdiff_t next = t.take();
          t.body(i, next < t.count ? next : -1);
          i = next;
        }
      },
      &tasks);
}

}  // namespace sinew
