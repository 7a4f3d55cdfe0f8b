#include "base/threads.hpp"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <thread>

#include "base/loop_threads.hpp"
#include "base/team.hpp"

namespace sinew {
namespace {

struct Loop {
  std::size_t count, grain;
  const LoopBody* body;
  std::atomic<std::size_t> next{0};
  std::exception_ptr error;
  std::mutex error_mutex;

  void run() {
    for (;;) {
      const std::size_t begin = next.fetch_add(grain);
      if (begin >= count) return;
      try {
        (*body)(begin, std::min(count, begin + grain));
      } catch (...) {
        const std::lock_guard lock(error_mutex);
        if (!error) error = std::current_exception();
        next = count;
      }
    }
  }
};

std::atomic<LoopRunner> loop_runner{nullptr};

// Of threads that are not the team's: a LoopRunner's.
thread_local bool inside_loop = false;

void run_share(void* context) { static_cast<Loop*>(context)->run(); }

void run_borrowed_share(void* context) {
  const bool before = inside_loop;
  inside_loop = true;
  run_share(context);
  inside_loop = before;
}

}  // namespace

void set_loop_runner(LoopRunner runner) { loop_runner = runner; }

int default_threads() {
  if (const char* text = std::getenv("SINEW_THREADS")) {
    const int n = std::atoi(text);
    if (n > 0) return std::min(n, 1024);
  }
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
  return std::max(1u, std::thread::hardware_concurrency());
}

int loop_threads() {
  static const int threads = default_threads();
  return inside_loop || inside_team() ? 1 : threads;
}

void parallel_for(std::size_t count, std::size_t grain, const LoopBody& body) {
  if (count == 0) return;
  grain = std::max<std::size_t>(1, grain);
  const int threads = loop_threads();
  if (count <= grain || threads == 1) return body(0, count);
  Loop loop{.count = count, .grain = grain, .body = &body, .next = 0, .error = nullptr, .error_mutex = {}};
  if (const LoopRunner runner = loop_runner) {
    runner(threads, run_borrowed_share, &loop);
  } else {
    run_team(run_share, &loop);
  }
  if (loop.error) std::rethrow_exception(loop.error);
}

}  // namespace sinew
