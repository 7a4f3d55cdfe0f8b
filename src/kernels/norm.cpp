#include "kernels/norm.hpp"

#include <algorithm>

#include "base/index.hpp"
#include "base/threads.hpp"
#include "kernels/vector.hpp"
#include "kernels/workspace.hpp"

namespace sinew {
namespace {

constexpr index_t kRows = 128;  // of one partial sum of the weight's gradient, whatever the threads

}  // namespace

template <class T>
void rms_norm_forward(Isa isa, index_t rows, index_t n, const T* x, index_t ld, const T* addend,
                      const T* weight, double eps, T* sum, T* y, float* inverse) {
  const auto& vector = vector_kernels<T>(isa);
  parallel_for(size(rows), 64, [&](std::size_t begin, std::size_t end) {
    for (auto r = static_cast<index_t>(begin); r < static_cast<index_t>(end); ++r)
      inverse[r] =
          vector.norm_row(x + r * ld, addend != nullptr ? addend + r * n : nullptr, weight, n,
                          static_cast<float>(eps), sum != nullptr ? sum + r * n : nullptr, y + r * n);
  });
}

template <class T>
void rms_norm_backward(Isa isa, index_t rows, index_t n, const T* x, index_t ld, const T* dy, const T* d_sum,
                       const T* weight, const float* inverse, T* dx, float* d_weight, bool accumulate) {
  const auto& vector = vector_kernels<T>(isa);
  const index_t parts = (rows + kRows - 1) / kRows;
  Workspace::Frame frame(thread_workspace());
  float* const partial = frame.take<float>(size(parts * n));
  parallel_for(size(parts), 1, [&](std::size_t begin, std::size_t end) {
    for (auto p = static_cast<index_t>(begin); p < static_cast<index_t>(end); ++p) {
      float* const sum = partial + p * n;
      std::fill_n(sum, n, 0.0F);
      for (index_t r = p * kRows; r < std::min(rows, (p + 1) * kRows); ++r)
        vector.norm_row_backward(x + r * ld, dy + r * n, d_sum != nullptr ? d_sum + r * n : nullptr, weight,
                                 inverse[r], n, dx + r * n, sum);
    }
  });
  for (index_t i = 0; i < n; ++i) {
    float sum = accumulate ? d_weight[i] : 0.0F;
    for (index_t p = 0; p < parts; ++p) sum += partial[p * n + i];
    d_weight[i] = sum;
  }
}

#define SINEW_NORM(T)                                                                                        \
  template void rms_norm_forward<T>(Isa, index_t, index_t, const T*, index_t, const T*, const T*, double,    \
                                    T*, T*, float*);                                                         \
  template void rms_norm_backward<T>(Isa, index_t, index_t, const T*, index_t, const T*, const T*, const T*, \
                                     const float*, T*, float*, bool);
SINEW_NORM(float)
SINEW_NORM(bf16)

}  // namespace sinew
