#if defined(__aarch64__)
#define SINEW_WIDTH 4
#include "kernels/quant_isa_tables.hpp"
#include "kernels/quant_product_simd.hpp"

namespace sinew {
const QuantKernels quant_dotprod = kVectorProducts<0>;
}
#endif
