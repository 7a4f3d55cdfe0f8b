#if defined(__aarch64__)
#define SINEW_WIDTH 4
#include "kernels/quant_isa_tables.hpp"
#include "kernels/quant_product_simd.hpp"

namespace sinew {

const QuantKernels quant_dotprod = {quantize_row, dot_tiles, unpack_span<0>, product,  nullptr,
                                    multiply,     swiglu,    add_scaled,     no_tiles, no_tiles};

}  // namespace sinew
#endif
