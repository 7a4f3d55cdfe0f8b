// The Cholesky factorisation on all threads.
#pragma once

#include <cstdint>

namespace sinew {

// a [n, n], symmetric, of which the lower triangle is read: on return its lower triangle holds L with
// a = L L^T. n is a multiple of 32. Blocks of 32 columns, products in fp32. Returns false (and leaves `a` in
// pieces) when a pivot is not positive.
bool cholesky(float* a, std::int64_t n);

}  // namespace sinew
