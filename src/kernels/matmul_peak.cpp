#include "kernels/matmul_peak.hpp"

#include <algorithm>
#include <chrono>
#include <vector>

#include "kernels/isa.hpp"
#include "kernels/matmul.hpp"

namespace sinew {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

template <class T>
double measure(T half) {
  constexpr index_t n = 2048;
  const std::vector<T> a(n * n, half), b(n * n, half);
  std::vector<float> c(n * n);
  Matmul<T> product;
  product.m = product.n = product.k = product.lda = product.ldb = product.ldc = n;
  product.a = a.data();
  product.b = b.data();
  product.b_transposed = true;
  product.c = c.data();
  matmul(active_isa(), product);  // touches the memory
  double best = 0;
  const auto start = Clock::now();
  for (int i = 0; i < 3 || seconds_since(start) < 0.5; ++i) {
    const auto begin = Clock::now();
    matmul(active_isa(), product);
    best = std::max(best, 2.0 * n * n * n / seconds_since(begin));
    if (seconds_since(start) > 5) break;  // a machine this slow or loaded gets no third try
  }
  return best;
}

}  // namespace

MatmulPeak matmul_peak() {
  static const MatmulPeak peak{measure(0.5F), measure(to_bf16(0.5F))};
  return peak;
}

}  // namespace sinew
