#include "kernels/matmul_peak.hpp"

#include <vector>

#include "base/clock.hpp"
#include "kernels/isa.hpp"
#include "kernels/matmul.hpp"

namespace sinew {
namespace {

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
  return 2.0 * n * n * n / best_seconds([&] { matmul(active_isa(), product); });
}

}  // namespace

MatmulPeak matmul_peak() {
  static const MatmulPeak peak{measure(0.5F), measure(to_bf16(0.5F))};
  return peak;
}

}  // namespace sinew
