#if defined(__x86_64__)
#define SINEW_WIDTH 16
#include "kernels/quant_isa_tables.hpp"
#include "kernels/quant_product_simd.hpp"

namespace sinew {
const QuantKernels quant_vnni = kVectorProducts<128>;
}
#endif
