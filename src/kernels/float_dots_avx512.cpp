#if defined(__x86_64__)
#define SINEW_WIDTH 16
#include "kernels/float_dots_simd.hpp"

namespace sinew {
const FloatDotsTable float_dots_avx512 = kFloatDots;
}
#endif
