#if defined(__aarch64__)
#define SINEW_WIDTH 4
#include "kernels/float_dots_simd.hpp"

namespace sinew {
const FloatDotsTable float_dots_neon = kFloatDots;
}
#endif
