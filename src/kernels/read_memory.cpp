#include "kernels/read_memory.hpp"

#include <algorithm>
#include <atomic>

#include "base/team.hpp"
#include "base/threads.hpp"
#include "kernels/isa.hpp"
#include "kernels/read_lines_simd.hpp"

namespace sinew {
namespace {

using ReadRange = std::uint64_t (*)(MemoryRange, const ReadPattern&);

ReadRange reader() {
#if defined(__x86_64__)
  if (best_isa() >= Isa::avx512) return read_range_avx512;
#endif
  return read_range_lines;
}

}  // namespace

std::uint64_t read_memory(std::span<const MemoryRange> ranges, const ReadPattern& pattern) {
  std::size_t all = 0;
  for (const MemoryRange& range : ranges) all += range.size();
  const auto threads = static_cast<std::size_t>(default_threads());
  const std::size_t share = (all / threads + 7) / 8 * 8;
  const ReadRange read = reader();
  std::atomic<std::uint64_t> sum{0};
  parallel_tasks(static_cast<std::ptrdiff_t>(threads), [&](std::ptrdiff_t i) {
    // Bytes [begin, end) of the ranges one after another, each cut at a multiple of 8.
    const std::size_t begin = static_cast<std::size_t>(i) * share;
    const std::size_t end = static_cast<std::size_t>(i) + 1 == threads ? all : begin + share;
    std::size_t at = 0;
    for (const MemoryRange& range : ranges) {
      const auto cut = [&](std::size_t place) {
        if (place <= at) return std::size_t{0};
        return place - at >= range.size() ? range.size() : (place - at) / 8 * 8;
      };
      sum ^= read(range.subspan(cut(begin), cut(end) - cut(begin)), pattern);
      at += range.size();
    }
  });
  return sum;
}

}  // namespace sinew
