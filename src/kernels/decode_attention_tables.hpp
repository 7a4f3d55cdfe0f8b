// The tables that the files of each instruction set define; for decode_attention.cpp alone.
#pragma once

#include "kernels/decode_attention.hpp"

namespace sinew {

extern const DecodeKernels decode_scalar;
#if defined(__x86_64__)
extern const DecodeKernels decode_avx2, decode_avx512, decode_bf16, decode_amx;
#endif

}  // namespace sinew
