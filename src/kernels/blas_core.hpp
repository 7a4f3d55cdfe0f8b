// OpenBLAS chooses its kernels when it is loaded, by the processor's model number. A version older than
// the processor takes those of 2004 ("Prescott"): on a Xeon of 2023 Debian 12's multiplied fp32 matrices
// 3 to 4 times slower than with the kernels for AVX-512 that it has.
#pragma once

#include <string>
#include <string_view>

#include "kernels/isa.hpp"

namespace sinew {

// The kernels OpenBLAS uses in this process, e.g. "SkylakeX"; "" when there is no OpenBLAS.
std::string openblas_core();

// The core that suits `best` where `core` is older than AVX2 or AVX-512 allow, else "".
std::string_view better_blas_core(std::string_view core, Isa best);

}  // namespace sinew
