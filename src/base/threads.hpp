// Threads: how many to use, and a parallel loop over a fixed pool.
#pragma once

#include <cstddef>

namespace sinew {

// SINEW_THREADS if set, else the cores this process may run on.
int default_threads();

// A loop's body, not owned: no loop allocates.
class LoopBody {
 public:
  template <class Body>
  LoopBody(const Body& body)  // NOLINT: a lambda is one
      : body_(&body), call_([](const void* b, std::size_t begin, std::size_t end) {
          (*static_cast<const Body*>(b))(begin, end);
        }) {}
  void operator()(std::size_t begin, std::size_t end) const { call_(body_, begin, end); }

 private:
  const void* body_;
  void (*call_)(const void*, std::size_t, std::size_t);
};

// Calls body(begin, end) on disjoint ranges that cover [0, count), on the shared pool and the calling
// thread. Ranges are of `grain` items or more. The first exception thrown by a body is rethrown here.
// Nested calls run on the calling thread.
void parallel_for(std::size_t count, std::size_t grain, const LoopBody& body);

// Lets parallel_for() compute on another library's threads instead of its own pool: runner(threads, work,
// context) calls work(context) on `threads` threads, the calling one among them, and returns when all have.
// Set it before the first loop that is to use it.
using LoopRunner = void (*)(int threads, void (*work)(void*), void* context);
void set_loop_runner(LoopRunner runner);

}  // namespace sinew
