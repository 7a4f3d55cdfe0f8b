#include "kernels/optimizer.hpp"

#include <algorithm>

#include "base/threads.hpp"
#include "kernels/workspace.hpp"

namespace sinew {
namespace {

constexpr index_t kPiece = 16384;

struct Piece {
  const AdamWSpan* span;
  index_t begin, n;
};

// body(piece number, piece) on all threads; returns the number of pieces.
template <class Body>
void each_piece(std::span<const AdamWSpan> spans, std::span<Piece> pieces, const Body& body) {
  std::size_t count = 0;
  for (const AdamWSpan& span : spans)
    for (index_t begin = 0; begin < span.n; begin += kPiece)
      pieces[count++] = {&span, begin, std::min(kPiece, span.n - begin)};
  parallel_for(count, 1, [&](std::size_t first, std::size_t last) {
    for (std::size_t i = first; i < last; ++i) body(i, pieces[i]);
  });
}

std::size_t pieces_of(std::span<const AdamWSpan> spans) {
  index_t count = 0;
  for (const AdamWSpan& span : spans) count += (span.n + kPiece - 1) / kPiece;
  return static_cast<std::size_t>(count);
}

}  // namespace

void adamw(Isa isa, std::span<const AdamWSpan> spans) {
  const auto& vector = vector_kernels<bf16>(isa);
  Workspace::Frame frame(thread_workspace());
  const std::size_t count = pieces_of(spans);
  each_piece(spans, {frame.take<Piece>(count), count}, [&](std::size_t, const Piece& p) {
    const AdamWSpan& s = *p.span;
    vector.adamw(s.w + p.begin, s.m + p.begin, s.v + p.begin,
                 s.gradient != nullptr ? s.gradient + p.begin : nullptr,
                 s.narrow != nullptr ? s.narrow + p.begin : nullptr, p.n, s.factors);
  });
}

double sum_of_squares(Isa isa, std::span<const AdamWSpan> spans) {
  const auto& vector = vector_kernels<float>(isa);
  Workspace::Frame frame(thread_workspace());
  const std::size_t count = pieces_of(spans);
  double* const sums = frame.take<double>(count);
  std::fill_n(sums, count, 0.0);
  each_piece(spans, {frame.take<Piece>(count), count}, [&](std::size_t i, const Piece& p) {
    if (p.span->gradient != nullptr) sums[i] = vector.sum_of_squares(p.span->gradient + p.begin, p.n);
  });
  double total = 0;
  for (std::size_t i = 0; i < count; ++i) total += sums[i];
  return total;
}

}  // namespace sinew
