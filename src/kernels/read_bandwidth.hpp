// How fast this machine reads memory, and multiplies 8-bit matrices: the limits that decoding and prefill of
// a quantized model are held against. Measured once a process, then remembered.
#pragma once

#include <cstddef>

namespace sinew {

struct ReadBandwidth {
  double bytes_per_second = 0;  // the best pattern's
  int streams = 0;              // of that pattern, on each thread
  std::size_t prefetch = 0;     // its distance in bytes; 0: left to the processor
};

// Reads 1 GiB (less where memory is short) on huge pages where the system gives them, on all threads, in 1, 4
// and 8 streams a thread, with and without prefetching: the best of several passes. About a second.
ReadBandwidth read_bandwidth();

// Operations a second (2 for each product and sum) of the active instruction set's 8-bit products whose
// operands are in the second-level cache, on all threads. 0 where there are no integer products. About half
// a second.
double int8_peak();

}  // namespace sinew
