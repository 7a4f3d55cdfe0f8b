#define SINEW_WIDTH 4
#include "kernels/decode_attention_simd.hpp"
#include "kernels/decode_attention_tables.hpp"

namespace sinew {
const DecodeKernels decode_scalar = {float_query_bytes, prepare_floats, attend_float,
                                     merge_pieces<AsTheyLie>};
}
