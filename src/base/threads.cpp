#include "base/threads.hpp"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace sinew {
namespace {

struct Loop {
  std::size_t count, grain;
  const std::function<void(std::size_t, std::size_t)>* body;
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

thread_local bool inside_loop = false;

class Pool {
 public:
  explicit Pool(int threads) {
    for (int i = 1; i < threads; ++i) workers_.emplace_back([this] { work(); });
  }
  ~Pool() {
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
    }
    wake_.notify_all();
    for (auto& worker : workers_) worker.join();
  }

  void run(Loop& loop) {
    const std::lock_guard one_loop_at_a_time(entry_);
    {
      const std::lock_guard lock(mutex_);
      loop_ = &loop;
      ++generation_;
      busy_ = workers_.size();
    }
    wake_.notify_all();
    inside_loop = true;
    loop.run();
    inside_loop = false;
    std::unique_lock lock(mutex_);
    idle_.wait(lock, [this] { return busy_ == 0; });
    loop_ = nullptr;
  }

 private:
  void work() {
    inside_loop = true;
    std::uint64_t seen = 0;
    for (;;) {
      Loop* loop = nullptr;
      {
        std::unique_lock lock(mutex_);
        wake_.wait(lock, [&] { return stop_ || generation_ != seen; });
        if (stop_) return;
        seen = generation_;
        loop = loop_;
      }
      loop->run();
      const std::lock_guard lock(mutex_);
      if (--busy_ == 0) idle_.notify_one();
    }
  }

  std::vector<std::thread> workers_;
  std::mutex mutex_, entry_;
  std::condition_variable wake_, idle_;
  Loop* loop_ = nullptr;
  std::uint64_t generation_ = 0;
  std::size_t busy_ = 0;
  bool stop_ = false;
};

std::atomic<LoopRunner> loop_runner{nullptr};

void run_share(void* context) {
  const bool before = inside_loop;
  inside_loop = true;
  static_cast<Loop*>(context)->run();
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

void parallel_for(std::size_t count, std::size_t grain,
                  const std::function<void(std::size_t, std::size_t)>& body) {
  if (count == 0) return;
  grain = std::max<std::size_t>(1, grain);
  if (inside_loop || count <= grain) return body(0, count);
  static const int threads = default_threads();
  if (threads == 1) return body(0, count);
  Loop loop{.count = count, .grain = grain, .body = &body, .next = 0, .error = nullptr, .error_mutex = {}};
  if (const LoopRunner runner = loop_runner) {
    runner(threads, run_share, &loop);
  } else {
    static Pool pool(threads);
    pool.run(loop);
  }
  if (loop.error) std::rethrow_exception(loop.error);
}

}  // namespace sinew
