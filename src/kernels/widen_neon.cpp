#if defined(__aarch64__)
#define SINEW_WIDTH 4
#include "kernels/widen_simd.hpp"

namespace sinew {
const WidenTable widen_neon = kWidenTable;
}
#endif
