#include "base/team.hpp"

#include <chrono>
#include <cstdint>
#include <thread>
#include <vector>

#include "base/threads.hpp"

namespace sinew {
namespace {

thread_local bool inside = false;

inline void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// `gate_` says in one word which call is open and how many threads are in: [call 32 | open 1 | inside 31].
class Team {
 public:
  explicit Team(int threads) {
    for (int i = 1; i < threads; ++i) workers_.emplace_back([this] { work(); });
  }
  ~Team() {
    stop_ = true;
    calls_.fetch_add(1);
    calls_.notify_all();
    for (auto& worker : workers_) worker.join();
  }
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

  void run(void (*function)(void*), void* context) {
    if (workers_.empty() || busy_.exchange(true)) return function(context);
    function_ = function;
    context_ = context;
    const std::uint32_t call = calls_.load(std::memory_order_relaxed) + 1;
    gate_.store((std::uint64_t{call} << 32) | kOpen);
    calls_.store(call);
    if (sleepers_.load() > 0) calls_.notify_all();
    function(context);
    gate_.fetch_and(~kOpen);
    // Threads that are in may have lost their core to another program: then let them have this one.
    for (int i = 1; (gate_.load(std::memory_order_acquire) & kInside) != 0; ++i)
      if (i % 256 == 0)
        std::this_thread::yield();
      else
        pause();
    busy_.store(false, std::memory_order_release);
  }

 private:
  static constexpr std::uint64_t kOpen = std::uint64_t{1} << 31, kInside = kOpen - 1;
  static constexpr auto kSpin = std::chrono::microseconds(60);

  void work() {
    inside = true;
    for (std::uint32_t seen = 0;;) {
      seen = next_call(seen);
      if (stop_) return;
      std::uint64_t gate = gate_.load(std::memory_order_acquire);
      while ((gate & kOpen) != 0) {
        if (!gate_.compare_exchange_weak(gate, gate + 1, std::memory_order_acq_rel)) continue;
        function_(context_);
        gate_.fetch_sub(1, std::memory_order_release);
        break;
      }
    }
  }

  // Waits until another call than `seen` has begun.
  std::uint32_t next_call(std::uint32_t seen) {
    const auto start = std::chrono::steady_clock::now();
    for (int i = 1;; ++i) {
      const std::uint32_t call = calls_.load(std::memory_order_acquire);
      if (call != seen) return call;
      pause();
      if (i % 16 == 0 && std::chrono::steady_clock::now() - start > kSpin) break;
    }
    sleepers_.fetch_add(1);
    calls_.wait(seen);
    sleepers_.fetch_sub(1);
    return calls_.load(std::memory_order_acquire);
  }

  std::vector<std::thread> workers_;
  alignas(64) std::atomic<std::uint64_t> gate_{0};
  alignas(64) std::atomic<std::uint32_t> calls_{0};
  alignas(64) std::atomic<int> sleepers_{0};
  std::atomic<bool> busy_{false}, stop_{false};
  void (*function_)(void*) = nullptr;
  void* context_ = nullptr;
};

}  // namespace

bool inside_team() { return inside; }

void run_team(void (*work)(void*), void* context) {
  if (inside) return work(context);
  static Team team(default_threads());
  inside = true;
  team.run(work, context);
  inside = false;
}

}  // namespace sinew
