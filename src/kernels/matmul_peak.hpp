// How fast this machine multiplies matrices with the kernels of this room.
#pragma once

namespace sinew {

struct MatmulPeak {
  double fp32 = 0, bf16 = 0;  // FLOP/s (2 n^3 a product)
};

// Square products of n = 2048 on all threads with the active instruction set, the best of at least three over
// about half a second a type. Measured once a process, then remembered; safe to call from any thread.
MatmulPeak matmul_peak();

}  // namespace sinew
