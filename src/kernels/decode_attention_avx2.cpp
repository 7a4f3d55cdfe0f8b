#if defined(__x86_64__)
#define SINEW_WIDTH 8
#include "kernels/decode_attention_simd.hpp"
#include "kernels/decode_attention_tables.hpp"

namespace sinew {
const DecodeKernels decode_avx2 = {float_query_bytes, prepare_floats, attend_float, merge_pieces<AsTheyLie>};
}
#endif
