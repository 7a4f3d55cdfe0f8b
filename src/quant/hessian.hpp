// Second moments of what goes into a weight matrix: the metric in which GPTQ and the importance of columns
// measure an error of the weights. The loss of a layer y = x W^T from an error E of its weights is
// sum over tokens |x E^T|^2 = trace(E H E^T) with H = X^T X.
#pragma once

#include <cstdint>
#include <vector>

namespace sinew {

// Columns that are treated together. Wider matrices are cut into equal pieces, whose columns are taken as
// uncorrelated: memory grows with the width, not with its square.
inline constexpr std::int64_t kHessianSpan = 4096;

struct ColumnPiece {
  std::int64_t first = 0, count = 0;
};
std::vector<ColumnPiece> column_pieces(std::int64_t cols);  // counts are multiples of 256 but for the last

class Hessian {
 public:
  Hessian() = default;
  explicit Hessian(std::int64_t cols);

  // The sums of tokens [count] more rows of x, `ld` apart. On all threads; the same bits for any number.
  void add(const float* x, std::int64_t ld, std::int64_t count);
  // Adds what `tokens` rows with the averages of `prior` would have added: a prior for matrices that see few.
  void mix(const Hessian& prior, double tokens);

  std::int64_t cols() const { return cols_; }
  double tokens() const { return tokens_; }
  const std::vector<ColumnPiece>& pieces() const { return pieces_; }
  const float* sums(std::size_t piece) const { return sums_[piece].data(); }  // [count, count]
  std::vector<float> moments() const;           // [cols] E[x^2]; ones when empty
  static std::size_t bytes(std::int64_t cols);  // that one holds

 private:
  std::int64_t cols_ = 0;
  double tokens_ = 0;
  std::vector<ColumnPiece> pieces_;
  std::vector<std::vector<float>> sums_;
};

}  // namespace sinew
