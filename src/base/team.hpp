// The pool of threads under parallel_for(), for code that may neither allocate nor lock: a loop costs a few
// cache lines. Threads that find no work spin for some microseconds, since the next loop is often near, and
// then sleep. A loop does not wait for threads that have not woken yet: whoever is there takes the work.
#pragma once

#include <atomic>
#include <cstddef>
#include <exception>

namespace sinew {

// Calls work(context) on the calling thread and on every thread of the pool that comes in time; returns when
// all that came have returned. `work` shares out what there is to do by itself and does not throw. On a
// thread of the pool, and while another thread's call is going on, only the calling thread works.
void run_team(void (*work)(void*), void* context);

bool inside_team();  // this thread is working for run_team() or a loop

// body(i) for every i in [0, count), each once, on the team, handed out in rising order. The first exception
// is rethrown here.
template <class Body>
void parallel_tasks(std::ptrdiff_t count, const Body& body) {
  if (count <= 1 || inside_team()) {
    for (std::ptrdiff_t i = 0; i < count; ++i) body(i);
    return;
  }
  struct Tasks {
    const Body& body;
    const std::ptrdiff_t count;
    std::atomic<std::ptrdiff_t> next{0};
    std::atomic<bool> failed{false};
    std::exception_ptr error{};
  } tasks{body, count};
  run_team(
      [](void* context) {
        auto& t = *static_cast<Tasks*>(context);
        try {
          for (std::ptrdiff_t i; (i = t.next.fetch_add(1, std::memory_order_relaxed)) < t.count;) t.body(i);
        } catch (...) {
          if (!t.failed.exchange(true)) t.error = std::current_exception();
          t.next.store(t.count, std::memory_order_relaxed);
        }
      },
      &tasks);
  if (tasks.error) std::rethrow_exception(tasks.error);
}

}  // namespace sinew
