#include "kernels/read_memory.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "base/team.hpp"
#include "base/threads.hpp"

namespace sinew {
namespace {

constexpr std::size_t kStep = 256;  // of one stream before the next one's turn

typedef std::uint64_t Line __attribute__((vector_size(64)));

void read_lines(const std::byte* p, const ReadPattern& pattern, Line& sum) {
  for (std::size_t j = 0; j < kStep; j += 64) {
    if (pattern.far > 0) __builtin_prefetch(p + j + pattern.far, 0, 2);
    if (pattern.near > 0) __builtin_prefetch(p + j + pattern.near, 0, 3);
    Line line;
    std::memcpy(&line, p + j, sizeof line);
    sum ^= line;
  }
}

// `range` begins at a multiple of 8 bytes of what it was cut from.
std::uint64_t read_range(MemoryRange range, const ReadPattern& pattern) {
  Line sum{};
  const auto streams = static_cast<std::size_t>(pattern.streams);
  const std::size_t run = range.size() / streams / kStep * kStep;
  for (std::size_t i = 0; i < run; i += kStep)
    for (std::size_t s = 0; s < streams; ++s) read_lines(range.data() + s * run + i, pattern, sum);
  std::uint64_t total = 0;
  for (int i = 0; i < 8; ++i) total ^= sum[i];
  for (std::size_t i = run * streams; i < range.size(); i += 8) {
    std::uint64_t word = 0;
    std::memcpy(&word, range.data() + i, std::min<std::size_t>(8, range.size() - i));
    total ^= word;
  }
  return total;
}

}  // namespace

std::uint64_t read_memory(std::span<const MemoryRange> ranges, const ReadPattern& pattern) {
  std::size_t all = 0;
  for (const MemoryRange& range : ranges) all += range.size();
  const auto threads = static_cast<std::size_t>(default_threads());
  const std::size_t share = (all / threads + 7) / 8 * 8;
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
      sum ^= read_range(range.subspan(cut(begin), cut(end) - cut(begin)), pattern);
      at += range.size();
    }
  });
  return sum;
}

}  // namespace sinew
