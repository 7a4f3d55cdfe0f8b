#include "ops/openmp_threads.hpp"

namespace sinew {

void run_on_openmp(int threads, void (*work)(void*), void* context) {
#pragma omp parallel num_threads(threads)
  work(context);
}

}  // namespace sinew
