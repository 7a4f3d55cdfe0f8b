// Fetching what is read next, for kernels that go through weights at the speed of memory.
#pragma once

#include <cstddef>

#include "kernels/gemm.hpp"

namespace sinew {

// How this processor is asked for what comes. `far` bytes ahead into the second-level cache and `near` bytes
// ahead into the first, or, where `near` is 0, `far` bytes ahead into the first alone.
//
// Two cores of a Sapphire Rapids in Q4_K: 20.8 GB/s without, 30 to 31 with one distance, 34 with two, as much
// as bare reading; beyond 4 KB ahead slower. Two cores of a Zen 5, steps of decoding in turn in one process:
// one distance of 4 KB takes 5 % (V2-Lite), 6 % (Llama 1.1B) and 7 % (OLMoE) less time than these two, 8 KB
// the same, but 6 % more in the one slow run; four tokens from memory are 1.08 to 1.12 times as fast.
struct ReadAhead {
  std::ptrdiff_t far = 3072, near = 512;
};
const ReadAhead& read_ahead();
void use_read_ahead(const ReadAhead& how);  // for tests: while nothing reads

// The rest is for files that are compiled for one instruction set.
namespace {

// Reads memory as it lies, into the caches: for what is then read in another order, or in small pieces far
// apart, and would come line by line through the few buffers of the first-level cache. A Zen 5 gets 8 GB/s a
// core that way, in runs 30.
[[maybe_unused]] void read_through(const void* memory, std::size_t bytes) {
  const auto* const p = static_cast<const volatile std::byte*>(memory);
  for (std::size_t i = 0; i < bytes; i += 64) (void)p[i];
}

template <int Bytes, int Hint>
[[gnu::always_inline]] inline void fetch(const std::byte* p) {
#pragma GCC unroll 16
  for (int i = 0; i < Bytes; i += 64) __builtin_prefetch(p + i, 0, Hint);
}

// Where reading is, and what is to be fetched ahead of it; what lies between the end of a run and the next
// one is leapt over.
struct Ahead {
  const std::byte* end;  // of the run
  std::ptrdiff_t leap;   // from there to the next run
  std::ptrdiff_t far, near;

  // `next`: the next run; null: what follows in memory.
  Ahead(const std::byte* run_end, const std::byte* next)
      : end(run_end),
        leap(next != nullptr ? next - run_end : 0),
        far(read_ahead().far),
        near(read_ahead().near) {}

  // Far: `Far` bytes from `p`, where reading is as if all of it lay in order; near: `Near` bytes from `q`,
  // what is read now.
  template <int Far, int Near>
  [[gnu::always_inline]] void ask(const std::byte* p, const std::byte* q) const {
    if (near == 0) return fetch<Far, 3>(place(p + far));
    fetch<Far, 2>(place(p + far));
    fetch<Near, 3>(place(q + near));
  }

 private:
  [[gnu::always_inline]] const std::byte* place(const std::byte* p) const { return p < end ? p : p + leap; }
};

}  // namespace
}  // namespace sinew
