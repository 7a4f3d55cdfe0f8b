#include "kernels/read_bandwidth.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstring>

#include "base/machine.hpp"
#include "base/team.hpp"
#include "base/threads.hpp"
#include "kernels/quant_tables.hpp"
#include "kernels/workspace.hpp"

namespace sinew {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::size_t kHuge = std::size_t{2} << 20;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

struct Buffer {
  explicit Buffer(std::size_t bytes) : size(bytes) {
    void* const p = ::mmap(nullptr, size + kHuge, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) return;
    map = static_cast<std::byte*>(p);
    data = map + (kHuge - reinterpret_cast<std::uintptr_t>(map) % kHuge) % kHuge;
    ::madvise(data, size, MADV_HUGEPAGE);
  }
  ~Buffer() {
    if (map != nullptr) ::munmap(map, size + kHuge);
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  std::byte *map = nullptr, *data = nullptr;
  std::size_t size;
};

typedef std::uint64_t Line __attribute__((vector_size(64)));

// The xor of all words of [p, p + n), read as `streams` runs side by side.
std::uint64_t read(const std::byte* p, std::size_t n, std::size_t streams, std::size_t prefetch) {
  Line sum{};
  const std::size_t run = n / streams / 256 * 256;
  for (std::size_t i = 0; i < run; i += 256)
    for (std::size_t s = 0; s < streams; ++s) {
      const std::byte* const q = p + s * run + i;
      for (std::size_t j = 0; j < 256; j += 64) {
        if (prefetch > 0) __builtin_prefetch(q + j + prefetch, 0, 2);
        Line line;
        std::memcpy(&line, q + j, sizeof line);
        sum ^= line;
      }
    }
  std::uint64_t total = 0;
  for (int i = 0; i < 8; ++i) total ^= sum[i];
  return total;
}

ReadBandwidth measure_reading() {
  const std::uint64_t free = this_machine().memory_free;
  const std::size_t bytes =
      free == 0 || free > (std::uint64_t{4} << 30) ? std::size_t{1} << 30 : std::size_t{128} << 20;
  const Buffer buffer(bytes);
  if (buffer.data == nullptr) return {};
  const auto parts = static_cast<std::size_t>(default_threads());
  const std::size_t part = bytes / parts / kHuge * kHuge;
  parallel_tasks(static_cast<std::ptrdiff_t>(parts), [&](std::ptrdiff_t i) {
    std::memset(buffer.data + static_cast<std::size_t>(i) * part, 1, part);
  });
  ReadBandwidth best;
  std::atomic<std::uint64_t> sink{0};
  for (int pass = 0; pass < 3; ++pass)
    for (const int streams : {1, 4, 8})
      for (const std::size_t prefetch : {std::size_t{0}, std::size_t{1024}}) {
        const auto start = Clock::now();
        parallel_tasks(static_cast<std::ptrdiff_t>(parts), [&](std::ptrdiff_t i) {
          sink ^= read(buffer.data + static_cast<std::size_t>(i) * part, part,
                       static_cast<std::size_t>(streams), prefetch);
        });
        const double rate = static_cast<double>(part * parts) / seconds_since(start);
        if (rate > best.bytes_per_second) best = {rate, streams, prefetch};
      }
  return best;
}

// A product of [tokens, kDeep] with kWide rows, again and again on each thread.
constexpr index_t kGroups = 16, kWide = 512, kDeep = 1024;

void multiply_many(const QuantKernels& kernels, int times) {
  Workspace::Frame frame(thread_workspace());
  const auto bytes = [](index_t n) { return static_cast<std::size_t>(n); };
  auto* const a = frame.take<std::int8_t>(bytes(kGroups * 16 * kDeep));
  auto* const b = frame.take<std::int8_t>(bytes(kWide * kDeep));
  auto* const sums = frame.take<std::int32_t>(bytes(kGroups * 16 * 32));
  std::memset(a, 3, bytes(kGroups * 16 * kDeep));
  std::memset(b, 5, bytes(kWide * kDeep));
  kernels.begin();
  for (int i = 0; i < times; ++i)
    for (index_t column = 0; column < kWide; column += 32)
      kernels.multiply(a, kDeep * 16, kGroups, kDeep / 64, b + column * kDeep, sums);
  kernels.end();
}

double measure_int8() {
  const QuantKernels* const kernels = quant_kernels(active_isa());
  if (kernels == nullptr) return 0;
  const int threads = default_threads();
  const double work = 2.0 * static_cast<double>(kGroups * 16 * kWide * kDeep);
  int times = 1;
  double best = 0;
  const auto begin = Clock::now();
  while (seconds_since(begin) < 0.5) {
    const auto start = Clock::now();
    parallel_tasks(threads, [&](std::ptrdiff_t) { multiply_many(*kernels, times); });
    const double seconds = seconds_since(start);
    best = std::max(best, work * times * threads / seconds);
    if (seconds < 0.02) times *= 2;
  }
  return best;
}

}  // namespace

ReadBandwidth read_bandwidth() {
  static const ReadBandwidth bandwidth = measure_reading();
  return bandwidth;
}

double int8_peak() {
  static const double peak = measure_int8();
  return peak;
}

}  // namespace sinew
