// Products into tiles and what is done with them, the work on one tile beside the next product: tiles and
// vectors compute at the same time where they alternate within some hundred instructions. So do lines that
// will be needed: asked for all at once between two products they cost as much as if they were read there,
// for the operands of tile products come from the second-level cache through the same buffers; a few at each
// step of a product cost little (docs/log.md, 2026-11-29). For kernels without steps both are done at once.
#pragma once

#include <algorithm>

#include "kernels/vector.hpp"
#include "kernels/workspace.hpp"

namespace sinew {

template <class T>
constexpr index_t kLine = 64 / static_cast<index_t>(sizeof(T));  // elements of a line of memory

template <class T>
class TilePipeline {
 public:
  TilePipeline(const GemmKernels<T>& gemm, const VectorKernels<T>& vector, Workspace::Frame& frame)
      : gemm_(gemm), vector_(vector), tiles_(frame.take<float>(size(kTiles * kTile * kTile))) {}

  // Arguments as block()'s; the result stays as it is during the next three products.
  const float* multiply(const T* a, index_t lda, index_t rows, const T* panel, index_t k) {
    float* const tile = tiles_ + next_ * kTile * kTile;
    next_ = (next_ + 1) % kTiles;
    multiply(a, lda, rows, panel, k, tile, kTile, false);
    return tile;
  }
  void multiply(const T* a, index_t lda, index_t rows, const T* panel, index_t k, float* c, index_t ldc,
                bool accumulate) {
    const index_t steps = std::max<index_t>(1, k / 32 * gemm_.beside_steps);
    end_ = std::min(work_.rows, row_ + share_);
    step_ = (end_ - row_ + steps - 1) / steps;
    lines_step_ = (lines_product_ + steps - 1) / steps;
    if (gemm_.block_beside != nullptr && (row_ < end_ || wanted_.row < wanted_.rows)) {
      gemm_.block_beside(a, lda, rows, panel, k, c, ldc, accumulate, {step, this});
    } else {
      ask_for_lines();
      gemm_.block(a, lda, rows, panel, k, c, ldc, accumulate);
    }
    do_rows(end_);  // where there are no steps
  }
  // What is to be done with a tile, beside the next `products` products.
  void then(const TileWork<T>& work, index_t products = 1) {
    finish();
    work_ = work;
    rows_ = vector_.work(work);
    row_ = 0;
    share_ = (work.rows + products - 1) / products;
    if (gemm_.block_beside == nullptr) finish();
  }
  // Asks for `columns` columns of `rows` rows, of row index[r] or r of `base`, beside the next `products`
  // products. A hint: what is left of an earlier wish is forgotten.
  void ask(const T* base, index_t ld, const std::int32_t* index, index_t rows, index_t columns,
           index_t products) {
    const index_t lines = rows * ((columns + kLine<T> - 1) / kLine<T>);
    wanted_ = {base, ld, index, lines > 0 ? rows : 0, columns, 0, 0};
    lines_product_ = (lines + products - 1) / products;
  }
  // Does what is left.
  void finish() { do_rows(work_.rows); }

 private:
  static constexpr index_t kTiles = 4;

  static void step(void* self) {
    auto& p = *static_cast<TilePipeline*>(self);
    p.do_rows(std::min(p.end_, p.row_ + p.step_));
    p.ask_for_lines();
  }
  void ask_for_lines() {
    Wanted& w = wanted_;
    for (index_t i = lines_step_; i > 0 && w.row < w.rows; --i) {
      __builtin_prefetch(w.base + (w.index != nullptr ? w.index[w.row] : w.row) * w.ld + w.column, 0, 2);
      w.column += kLine<T>;
      if (w.column < w.columns) continue;
      w.column = 0;
      ++w.row;
    }
  }
  void do_rows(index_t end) {
    if (row_ >= end) return;
    rows_(work_, row_, end);
    row_ = end;
  }

  struct Wanted {
    const T* base;
    index_t ld;
    const std::int32_t* index;
    index_t rows, columns, row, column;
  };

  const GemmKernels<T>& gemm_;
  const VectorKernels<T>& vector_;
  float* const tiles_;
  index_t next_ = 0;
  TileWork<T> work_;  // pending
  TileRows<T> rows_ = nullptr;
  index_t row_ = 0, share_ = 0;  // its next row, and how many a product does,
  index_t end_ = 0, step_ = 0;   // up to which, and how many a step
  Wanted wanted_{};
  index_t lines_product_ = 0, lines_step_ = 0;
};

}  // namespace sinew
