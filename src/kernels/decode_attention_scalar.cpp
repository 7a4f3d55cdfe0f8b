#define SINEW_WIDTH 4
#include "kernels/decode_attention_simd.hpp"
#include "kernels/decode_attention_tables.hpp"

namespace sinew {
const DecodeKernels decode_scalar = {attend_float, merge_pieces};
}
