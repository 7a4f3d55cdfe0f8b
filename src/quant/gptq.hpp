// GPTQ (Frantar et al., ICLR 2023) into the block formats: the columns of a row are rounded one after
// another, and each column's target takes up what the rounding of those before it did to the layer's output.
//
// With H = R R^T, R upper triangular, the loss of an error e of a row is |e R|^2, whose element k holds only
// columns up to k. So column k is rounded to the level nearest to t_k = w_k + sum over j < k of
// (w_j - q_j) R_jk / R_kk, and the loss is sum of R_kk^2 (t_k - q_k)^2: GPTQ in the form of Babai's nearest
// plane (Chen et al. 2025), without H's inverse.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/block_formats.hpp"
#include "quant/hessian.hpp"

namespace sinew {

inline constexpr double kGptqDamping = 0.01;  // of H's mean diagonal, added to it (the paper's section 3.3)

// R of one piece of columns, as products read it.
struct GptqFactor {
  struct Piece {
    ColumnPiece columns;
    std::vector<float> panels;  // of 32 columns: [rows above and in it][32], R_jk / R_kk, 0 on and below the
                                // diagonal
    std::vector<float> diagonal;  // [count] R_kk^2, scaled to losses for one token
    const float* panel(std::int64_t number) const;
  };
  std::int64_t cols = 0;
  std::vector<Piece> pieces;
};

// Columns are a multiple of 32. An H without tokens stands for the identity. The damping is raised until the
// factorisation succeeds.
GptqFactor gptq_factor(const Hessian& hessian, double damping = kGptqDamping);

// Losses trace(E H E^T) for one token, summed over rows, H with its damping.
struct GptqLoss {
  double loss = 0, rounding = 0;  // of the result, and of rounding alone, weighed by column
};

// `rows` x `cols` floats into `out`. Each row is a pure function of itself and the factor, and its loss is
// never above that of quantize_rows with the importance H_kk: where feedback does not pay, rounding is kept.
GptqLoss gptq_rows(BlockFormat format, const float* values, std::int64_t rows, const GptqFactor& factor,
                   const float* importance, std::byte* out);

// The loss for one token of any other values for the same rows.
double hessian_loss(const GptqFactor& factor, const float* values, const float* rounded, std::int64_t rows);

}  // namespace sinew
