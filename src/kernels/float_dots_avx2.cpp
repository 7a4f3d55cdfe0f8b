#if defined(__x86_64__)
#define SINEW_WIDTH 8
#include "kernels/float_dots_simd.hpp"

namespace sinew {
const FloatDotsTable float_dots_avx2 = kFloatDots;
}
#endif
