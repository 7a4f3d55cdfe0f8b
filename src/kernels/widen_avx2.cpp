#if defined(__x86_64__)
#define SINEW_WIDTH 8
#include "kernels/widen_simd.hpp"

namespace sinew {
const WidenTable widen_avx2 = kWidenTable;
}
#endif
