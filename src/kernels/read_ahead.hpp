// Fetching what is read next, for kernels that go through weights at the speed of memory. Include only in a
// file that is compiled for one instruction set.
#pragma once

#include <cstddef>

#include "kernels/gemm.hpp"

namespace sinew {
namespace {

template <int Bytes, int Hint>
[[gnu::always_inline]] inline void fetch(const std::byte* p) {
#pragma GCC unroll 16
  for (int i = 0; i < Bytes; i += 64) __builtin_prefetch(p + i, 0, Hint);
}

// Where reading is, and what is to be fetched ahead of it. Software fetches twice: far ahead into the
// second-level cache and shortly before use into the first; what lies between the end of a run and the next
// one is leapt over. Measured on two cores of a Sapphire Rapids in Q4_K: 20.8 GB/s without, 30 to 31 with one
// distance, 34 with two, as much as bare reading.
struct Ahead {
  static constexpr index_t kFar = 3072, kNear = 512;
  const std::byte* end;  // of the run
  std::ptrdiff_t leap;   // from there to the next run

  // `next`: the next run; null: what follows in memory.
  Ahead(const std::byte* run_end, const std::byte* next)
      : end(run_end), leap(next != nullptr ? next - run_end : 0) {}
  [[gnu::always_inline]] const std::byte* place(const std::byte* p) const { return p < end ? p : p + leap; }
};

}  // namespace
}  // namespace sinew
