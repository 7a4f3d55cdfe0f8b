#include "kernels/read_bandwidth.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "base/clock.hpp"
#include "base/machine.hpp"
#include "base/team.hpp"
#include "base/threads.hpp"
#include "kernels/quant_tables.hpp"
#include "kernels/workspace.hpp"

namespace sinew {
namespace {

constexpr std::size_t kHuge = std::size_t{2} << 20;

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

ReadBandwidth measure_reading() {
  const std::uint64_t free = this_machine().memory_free;
  const std::size_t bytes =
      free == 0 || free > (std::uint64_t{4} << 30) ? std::size_t{1} << 30 : std::size_t{128} << 20;
  const Buffer buffer(bytes);
  if (buffer.data == nullptr) return {};
  parallel_tasks(static_cast<std::ptrdiff_t>(bytes / kHuge), [&](std::ptrdiff_t i) {
    std::memset(buffer.data + static_cast<std::size_t>(i) * kHuge, 1, kHuge);
  });
  const MemoryRange all[] = {{buffer.data, bytes}};
  return read_bandwidth(all);
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

struct Int8Rates {
  double best = 0;  // of all calls
  double mean = 0;  // of those of 10 ms or more
};

Int8Rates measure_int8(double seconds) {
  Int8Rates rates;
  const QuantKernels* const kernels = quant_kernels(active_isa());
  if (kernels == nullptr) return rates;
  const int threads = default_threads();
  const double work = 2.0 * static_cast<double>(kGroups * 16 * kWide * kDeep) * threads;
  double done = 0, busy = 0;
  int times = 1;
  const double begin = clock_seconds();
  while (clock_seconds() - begin < seconds || busy == 0) {
    const double took =
        seconds_of([&] { parallel_tasks(threads, [&](std::ptrdiff_t) { multiply_many(*kernels, times); }); });
    rates.best = std::max(rates.best, work * times / took);
    if (took < 0.01) {
      times *= 2;
      continue;
    }
    done += work * times;
    busy += took;
  }
  rates.mean = done / busy;
  return rates;
}

}  // namespace

ReadBandwidth read_bandwidth() {
  static const ReadBandwidth bandwidth = measure_reading();
  return bandwidth;
}

ReadBandwidth read_bandwidth(std::span<const MemoryRange> memory) {
  constexpr ReadPattern kPatterns[] = {{1, 0, 0},      {2, 0, 0},     {4, 0, 0},    {8, 0, 0},
                                       {1, 1024, 0},   {4, 1024, 0},  {8, 1024, 0}, {4, 4096, 0},
                                       {1, 3072, 512}, {8, 3072, 512}};
  ReadBandwidth best;
  for (const MemoryRange& range : memory) best.bytes += range.size();
  std::uint64_t sink = 0;
  const auto measure = [&](const ReadPattern& pattern) {
    const double start = clock_seconds();
    sink ^= read_memory(memory, pattern);
    const double rate = static_cast<double>(best.bytes) / (clock_seconds() - start);
    if (rate <= best.bytes_per_second) return;
    best.bytes_per_second = rate;
    best.pattern = pattern;
  };
  // Memory just written is read slowly the first time: so two passes of all patterns.
  for (int pass = 0; pass < 2; ++pass)
    for (const ReadPattern& pattern : kPatterns) measure(pattern);
  // Some hosts need seconds until all of it is fast.
  const ReadPattern again = best.pattern;
  for (int pass = 0, last_gain = 0; pass < 24 && pass - last_gain < 4; ++pass) {
    const double before = best.bytes_per_second;
    measure(again);
    if (best.bytes_per_second > 1.005 * before) last_gain = pass;
  }
  asm volatile("" : : "r"(sink));
  return best;
}

double int8_peak() {
  static const double peak = measure_int8(0.5).best;
  return peak;
}

double int8_rate(double seconds) { return measure_int8(seconds).mean; }

}  // namespace sinew
