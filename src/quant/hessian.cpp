#include "quant/hessian.hpp"

#include <algorithm>

#include "base/error.hpp"
#include "base/index.hpp"
#include "kernels/matmul.hpp"

namespace sinew {
std::vector<ColumnPiece> column_pieces(std::int64_t cols) {
  constexpr std::int64_t kBlock = 256;
  const std::int64_t pieces = std::max<std::int64_t>(1, (cols + kHessianSpan - 1) / kHessianSpan);
  const std::int64_t step =
      pieces == 1 ? cols : ((cols + pieces - 1) / pieces + kBlock - 1) / kBlock * kBlock;
  std::vector<ColumnPiece> out;
  for (std::int64_t first = 0; first < cols; first += step)
    out.push_back({first, std::min(step, cols - first)});
  return out;
}

Hessian::Hessian(std::int64_t cols) : cols_(cols), pieces_(column_pieces(cols)) {
  for (const ColumnPiece& piece : pieces_) sums_.emplace_back(size(piece.count * piece.count), 0.F);
}

std::size_t Hessian::bytes(std::int64_t cols) {
  std::int64_t sum = 0;
  for (const ColumnPiece& piece : column_pieces(cols)) sum += piece.count * piece.count;
  return size(sum) * sizeof(float);
}

void Hessian::add(const float* x, std::int64_t ld, std::int64_t count) {
  for (std::size_t p = 0; p < pieces_.size() && count > 0; ++p) {
    const std::int64_t n = pieces_[p].count;
    const float* const from = x + pieces_[p].first;
    matmul<float>(active_isa(), {.m = n,
                                 .n = n,
                                 .k = count,
                                 .a = from,
                                 .lda = ld,
                                 .a_transposed = true,
                                 .b = from,
                                 .ldb = ld,
                                 .c = sums_[p].data(),
                                 .ldc = n,
                                 .accumulate = true});
  }
  tokens_ += static_cast<double>(count);
}

void Hessian::mix(const Hessian& prior, double tokens) {
  ensure(prior.cols_ == cols_, "a prior of {} columns for {}", prior.cols_, cols_);
  if (prior.tokens_ <= 0 || tokens <= 0) return;
  const auto factor = static_cast<float>(tokens / prior.tokens_);
  for (std::size_t p = 0; p < sums_.size(); ++p)
    for (std::size_t i = 0; i < sums_[p].size(); ++i) sums_[p][i] += factor * prior.sums_[p][i];
  tokens_ += tokens;
}

std::vector<float> Hessian::moments() const {
  std::vector<float> out(size(cols_), 1.F);
  if (tokens_ <= 0) return out;
  for (std::size_t p = 0; p < pieces_.size(); ++p)
    for (std::int64_t i = 0; i < pieces_[p].count; ++i)
      out[size(pieces_[p].first + i)] =
          static_cast<float>(static_cast<double>(sums_[p][size(i * (pieces_[p].count + 1))]) / tokens_);
  return out;
}

}  // namespace sinew
