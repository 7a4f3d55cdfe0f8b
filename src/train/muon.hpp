// Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon): the momentum of a 2-D weight, made
// orthogonal by a quintic Newton-Schulz iteration. Updates are scaled by muon_scale * sqrt(max(rows,
// columns)) so that their RMS is that of AdamW's and one learning rate and weight decay fit both (Liu et al.
// 2025, "Muon is Scalable for LLM Training", eq 4).
#pragma once

#include <vector>

#include "train/optimizer.hpp"

namespace sinew {

// `matrices` [n, rows, columns] with singular values near 1 each, after `iterations` of
// X <- aX + (bA + cA^2)X, A = XX^T, (a, b, c) = (3.4445, -4.7750, 2.0315), from X / |X|_F.
at::Tensor newton_schulz(const at::Tensor& matrices, std::int64_t iterations);

// What is made orthogonal, of a tensor or a piece of one; moves the momentum on.
at::Tensor muon_direction(TrainedTensor& t, const RunConfig::Optimizer& options, double gradient_scale);
// The update of a tensor (or piece) of a matrix of rows x columns by the same part of the orthogonal matrix.
void muon_apply(TrainedTensor& t, const at::Tensor& orthogonal, std::int64_t rows, std::int64_t columns,
                const RunConfig::Optimizer& options, double lr);

// Equal shapes are handled in batches: experts have many.
void muon_update(const std::vector<TrainedTensor*>& tensors, const RunConfig::Optimizer& options, double lr,
                 double gradient_scale);

}  // namespace sinew
