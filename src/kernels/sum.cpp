#include "kernels/sum.hpp"

#include <algorithm>

#include "base/threads.hpp"
#include "kernels/vector.hpp"
#include "kernels/workspace.hpp"

namespace sinew {

template <class T>
void sum_terms(Isa isa, std::span<const T* const> terms, index_t n, T* out) {
  constexpr std::size_t kPiece = 1 << 15;
  const auto& vector = vector_kernels<T>(isa);
  const auto length = static_cast<std::size_t>(n);
  parallel_for((length + kPiece - 1) / kPiece, 1, [&](std::size_t first, std::size_t last) {
    const std::size_t begin = first * kPiece, end = std::min(length, last * kPiece);
    Workspace::Frame frame(thread_workspace());
    const T** const from = frame.take<const T*>(terms.size());
    for (std::size_t i = 0; i < terms.size(); ++i) from[i] = terms[i] + begin;
    vector.sum_terms(from, static_cast<index_t>(terms.size()), static_cast<index_t>(end - begin),
                     out + begin);
  });
}

template void sum_terms<float>(Isa, std::span<const float* const>, index_t, float*);
template void sum_terms<bf16>(Isa, std::span<const bf16* const>, index_t, bf16*);

}  // namespace sinew
