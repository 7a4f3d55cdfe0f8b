// How fast this machine reads memory, and multiplies 8-bit matrices: the limits that decoding and prefill of
// a quantized model are held against. Measured once a process, then remembered, where nothing else is said.
#pragma once

#include "kernels/read_memory.hpp"

namespace sinew {

struct ReadBandwidth {
  double bytes_per_second = 0;  // the best pattern's
  ReadPattern pattern{};
  std::size_t bytes = 0;  // what was read
};

// Reads 1 GiB (less where memory is short) on huge pages where the system gives them, on all threads, in
// several patterns: the best of several passes. About a second.
ReadBandwidth read_bandwidth();

// The same of memory that is there, a model's weights for one: caches keep as much of it as of any other
// reading of the same bytes. Not remembered.
ReadBandwidth read_bandwidth(std::span<const MemoryRange> memory);

// Operations a second (2 for each product and sum) of the active instruction set's 8-bit products whose
// operands are in the second-level cache, on all threads. 0 where there are no integer products. About half
// a second.
double int8_peak();
// What they reach now on average, over so many seconds. Not remembered: clocks change, and so does what other
// guests of a host take.
double int8_rate(double seconds);

}  // namespace sinew
