// The tables behind widen.hpp.
#pragma once

#include "kernels/widen.hpp"

namespace sinew {

struct WidenTable {
  WidenRow f16, bf16, q8_0, q4_0;
};
extern const WidenTable widen_avx2, widen_avx512, widen_neon;

}  // namespace sinew
