// Loops on OpenMP's threads, for set_loop_runner(). ATen, oneDNN and OpenBLAS compute there; a second pool
// beside it would wait for cores on which the first one spins.
#pragma once

namespace sinew {

void run_on_openmp(int threads, void (*work)(void*), void* context);

}  // namespace sinew
