// The tables that the files of each instruction set define; for quant_tables.cpp alone.
#pragma once

#include "kernels/quant_tables.hpp"

namespace sinew {

#if defined(__x86_64__)
extern const QuantKernels quant_avx2, quant_vnni, quant_amx;
#elif defined(__aarch64__)
extern const QuantKernels quant_neon, quant_dotprod;
#endif

}  // namespace sinew
