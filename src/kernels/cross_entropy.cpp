#include "kernels/cross_entropy.hpp"

#include <algorithm>
#include <cstring>

#include "base/index.hpp"
#include "base/threads.hpp"
#include "kernels/matmul.hpp"
#include "kernels/vector.hpp"
#include "kernels/workspace.hpp"

namespace sinew {
namespace {

constexpr index_t kLogits = index_t{1} << 24;  // held at once: 64 MiB of fp32

index_t piece_of(index_t tokens, index_t vocabulary) {
  return std::min(tokens, std::max(kTile, kLogits / vocabulary / kTile * kTile));
}

}  // namespace

template <class T>
double cross_entropy(Isa isa, index_t tokens, index_t n, index_t vocabulary, const T* hidden, const T* weight,
                     const std::int64_t* targets, T* d_hidden, float* d_weight) {
  if (tokens == 0) {
    if (d_weight != nullptr) std::memset(d_weight, 0, size(vocabulary * n) * sizeof(float));
    return 0;
  }
  const auto& vector = vector_kernels<T>(isa);
  const index_t most = piece_of(tokens, vocabulary);
  // Row stride of logits: not a power of two, whose rows would share cache sets.
  const index_t ld = round_up(vocabulary, kTile) + kTile;
  Workspace::Frame frame(thread_workspace());
  float* const logits = frame.take<float>(size(most * ld));
  float* const losses = frame.take<float>(size(tokens));
  Matmul<T> forward{.m = most,
                    .n = vocabulary,
                    .k = n,
                    .lda = n,
                    .b = weight,
                    .ldb = n,
                    .b_transposed = true,
                    .c = logits,
                    .ldc = ld};
  T* const forward_panels = frame.take<T>(size(right_size(isa, forward)));
  pack_right(isa, forward, forward_panels);
  forward.packed_b = forward_panels;
  const index_t ld_d = ld * static_cast<index_t>(sizeof(float) / sizeof(T));
  Matmul<T> backward{.m = most, .n = n, .k = vocabulary, .lda = ld_d, .b = weight, .ldb = n, .ldc = n};
  T* d_logits = nullptr;
  if (d_hidden != nullptr) {
    d_logits = reinterpret_cast<T*>(logits);  // each row's gradient takes the place of its logits
    T* const panels = frame.take<T>(size(right_size(isa, backward)));
    pack_right(isa, backward, panels);
    backward.packed_b = panels;
  }
  for (index_t first = 0; first < tokens; first += most) {
    const index_t count = std::min(most, tokens - first);
    forward.m = backward.m = count;
    forward.a = hidden + first * n;
    matmul(isa, forward);
    parallel_for(size(count), 4, [&](std::size_t begin, std::size_t end) {
      for (auto r = static_cast<index_t>(begin); r < static_cast<index_t>(end); ++r) {
        T* const d = d_logits != nullptr ? d_logits + r * ld_d : nullptr;
        const std::int64_t target = targets[first + r];
        losses[first + r] =
            target == -100 ? 0.0F : vector.cross_entropy_row(logits + r * ld, vocabulary, target, d);
        if (target == -100 && d != nullptr)
          std::memset(static_cast<void*>(d), 0, size(vocabulary) * sizeof(T));
      }
    });
    if (d_hidden == nullptr) continue;
    backward.a = d_logits;
    backward.c_narrow = d_hidden + first * n;
    matmul(isa, backward);
    matmul(isa, Matmul<T>{.m = vocabulary,
                          .n = n,
                          .k = count,
                          .a = d_logits,
                          .lda = ld_d,
                          .a_transposed = true,
                          .b = hidden + first * n,
                          .ldb = n,
                          .c = d_weight,
                          .ldc = n,
                          .accumulate = first > 0});
  }
  double sum = 0;
  for (index_t t = 0; t < tokens; ++t) sum += losses[t];
  return sum;
}

template double cross_entropy<float>(Isa, index_t, index_t, index_t, const float*, const float*,
                                     const std::int64_t*, float*, float*);
template double cross_entropy<bf16>(Isa, index_t, index_t, index_t, const bf16*, const bf16*,
                                    const std::int64_t*, bf16*, float*);

}  // namespace sinew
