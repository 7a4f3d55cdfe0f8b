#if defined(__x86_64__)
#define SINEW_WIDTH 8
#include "kernels/quant_isa_tables.hpp"
#include "kernels/quant_product_simd.hpp"

namespace sinew {
const QuantKernels quant_avx2 = kVectorProducts<0>;
}
#endif
