#if defined(__x86_64__)
#include "kernels/read_lines_simd.hpp"

namespace sinew {
std::uint64_t read_range_avx512(MemoryRange range, const ReadPattern& pattern) {
  return read_range_lines(range, pattern);
}
}  // namespace sinew
#endif
