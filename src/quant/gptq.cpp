#include "quant/gptq.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.hpp"
#include "base/index.hpp"
#include "base/team.hpp"
#include "kernels/gemm.hpp"
#include "kernels/workspace.hpp"
#include "quant/block_fit.hpp"
#include "quant/cholesky.hpp"
#include "quant/quantize_rows.hpp"

namespace sinew {
namespace {

// Panel p has 32 (p + 1) rows, and those before it 32 p (p + 1) / 2 together.
index_t panel_begin(index_t number) { return kTile * kTile * number * (number + 1) / 2; }

// H turned by half a turn, so that its lower factor is R turned likewise; divided by the tokens.
std::vector<float> turned(const float* sums, index_t n, double tokens, double damping) {
  std::vector<float> out(size(n * n), 0.F);
  if (tokens <= 0) {
    for (index_t i = 0; i < n; ++i) out[size(i * (n + 1))] = 1.F;
    return out;
  }
  double mean = 0;
  for (index_t i = 0; i < n; ++i) mean += static_cast<double>(sums[i * (n + 1)]) / tokens;
  mean /= static_cast<double>(n);
  const auto share = static_cast<float>(1 / tokens);
  parallel_tasks(n, [&](index_t i) {
    for (index_t j = 0; j < n; ++j) out[size(i * n + j)] = share * sums[(n - 1 - i) * n + n - 1 - j];
    out[size(i * (n + 1))] += mean > 0 ? static_cast<float>(damping * mean) : 1.F;
  });
  return out;
}

GptqFactor::Piece factor_piece(const Hessian& hessian, std::size_t number, double damping) {
  GptqFactor::Piece piece{.columns = hessian.pieces()[number], .panels = {}, .diagonal = {}};
  const index_t n = piece.columns.count;
  ensure(n % kTile == 0, "{} columns are no multiple of {}", n, kTile);
  std::vector<float> l;
  do {
    l = turned(hessian.sums(number), n, hessian.tokens(), damping);
    damping *= 10;
    ensure(damping < 1e9, "the second moments of {} columns are not finite", n);
  } while (!cholesky(l.data(), n));
  piece.diagonal.resize(size(n));
  piece.panels.assign(size(panel_begin(n / kTile)), 0.F);
  const auto r = [&](index_t j, index_t k) { return l[size((n - 1 - j) * n + n - 1 - k)]; };
  for (index_t k = 0; k < n; ++k) {
    const float pivot = r(k, k);
    piece.diagonal[size(k)] = pivot * pivot;
    float* const panel = piece.panels.data() + panel_begin(k / kTile) + k % kTile;
    for (index_t j = 0; j < k; ++j) panel[j * kTile] = r(j, k) / pivot;
  }
  return piece;
}

// Up to 32 rows of one piece on their way. Arrays are [32, n].
struct Rows {
  const GptqFactor::Piece& piece;
  index_t rows, n;
  const float* weights;  // [rows, ld]
  index_t ld;
  float *target, *error;  // w_k + feedback; w_k - q_k
};

// target of the panel = weights + error of columns [0, before) times the panel.
void set_targets(const Rows& r, index_t panel, index_t before) {
  const auto& gemm = gemm_kernels<float>(active_isa());
  float* const to = r.target + panel * kTile;
  for (index_t i = 0; i < r.rows; ++i) std::copy_n(r.weights + i * r.ld + panel * kTile, kTile, to + i * r.n);
  if (before > 0) gemm.block(r.error, r.n, kTile, r.piece.panel(panel), before, to, r.n, true);
}

// What the errors of columns [from, panel * 32) add to the panel's targets of one row.
void add_feedback(const Rows& r, index_t row, index_t from, index_t panel, float* target) {
  const float* const error = r.error + row * r.n;
  const float* const factors = r.piece.panel(panel);
  for (index_t j = from; j < panel * kTile; ++j)
    for (index_t c = 0; c < kTile; ++c) target[c] += error[j] * factors[j * kTile + c];
}

// One row through one block of columns with given scales: fills levels, the row's errors and `target` (of the
// block: on entry with the feedback of the blocks before, on return all of it). Returns the loss.
double feed_block(BlockFormat format, const BlockFit& fit, const Rows& r, index_t row, index_t first,
                  index_t columns, index_t group_size, float* target, std::int8_t* levels) {
  const float* const weights = r.weights + row * r.ld;
  float* const error = r.error + row * r.n;
  double loss = 0;
  for (index_t at = first; at < first + columns; at += kTile) {
    const index_t panel = at / kTile;
    float* const t = target + (at - first);
    add_feedback(r, row, first, panel, t);
    const float* const factors = r.piece.panel(panel) + at * kTile;
    for (index_t c = 0; c < kTile; ++c) {
      const auto group = size((at - first + c) / group_size);
      const int level = nearest_level(format, fit, group, t[c]);
      const float value = level_value(format, fit, group, level);
      levels[at - first + c] = static_cast<std::int8_t>(level);
      error[at + c] = weights[at + c] - value;
      const double miss = static_cast<double>(t[c]) - value;
      loss += static_cast<double>(r.piece.diagonal[size(at + c)]) * miss * miss;
      for (index_t k = c + 1; k < kTile; ++k) t[k] += error[at + c] * factors[c * kTile + k];
    }
  }
  return loss;
}

// Scales for the block from the targets as they stand before it is entered, then from the targets that its
// own feedback made of them, while that helps.
double round_block(BlockFormat format, const BlockShape& shape, const Rows& r, index_t row, index_t first,
                   index_t columns, std::byte* out) {
  constexpr int kFits = 3;
  const float* const start = r.target + row * r.n + first;
  const float* const weight = r.piece.diagonal.data() + first;
  float* const error = r.error + row * r.n + first;
  alignas(64) float target[kSuperBlock], best_error[kSuperBlock];
  std::int8_t levels[kSuperBlock], best_levels[kSuperBlock];
  BlockFit fit, best_fit;
  double best = std::numeric_limits<double>::infinity();
  std::copy_n(start, columns, target);
  for (int attempt = 0; attempt < kFits; ++attempt) {
    fit_block(format, target, weight, fit, levels);
    std::copy_n(start, columns, target);
    const double loss = feed_block(format, fit, r, row, first, columns,
                                   static_cast<index_t>(shape.group_size), target, levels);
    if (!(loss < best)) break;
    const bool enough = loss > 0.99 * best;
    best = loss;
    best_fit = fit;
    std::copy_n(levels, columns, best_levels);
    std::copy_n(error, columns, best_error);
    if (enough) break;
  }
  std::copy_n(best_error, columns, error);
  pack_block(format, best_fit, best_levels, out);
  return best;
}

// Losses of each row whose error r.error holds, added to `losses`.
void add_losses(const Rows& r, double* losses) {
  const auto& gemm = gemm_kernels<float>(active_isa());
  alignas(64) float c[kTile * kTile];
  for (index_t panel = 0; panel * kTile < r.n; ++panel) {
    gemm.block(r.error, r.n, kTile, r.piece.panel(panel), (panel + 1) * kTile, c, kTile, false);
    for (index_t i = 0; i < r.rows; ++i)
      for (index_t k = 0; k < kTile; ++k) {
        const double miss = static_cast<double>(c[i * kTile + k]) + r.error[i * r.n + panel * kTile + k];
        losses[i] += static_cast<double>(r.piece.diagonal[size(panel * kTile + k)]) * miss * miss;
      }
  }
}

struct Chunk {
  double gptq[kTile] = {}, rounding[kTile] = {};
};

// Up to 32 rows of all pieces: GPTQ into `out`, and the losses of `rounded` (as packed by quantize_rows).
void run_chunk(BlockFormat format, const float* values, index_t rows, const GptqFactor& factor,
               const std::byte* rounded, std::byte* out, Chunk& chunk) {
  const BlockInfo& info = block_info(format);
  const BlockShape shape = block_shape(format);
  const auto block = static_cast<index_t>(info.elements);
  const index_t row_bytes = factor.cols / block * static_cast<index_t>(info.bytes);
  gemm_kernels<float>(active_isa()).begin();
  for (const GptqFactor::Piece& piece : factor.pieces) {
    const index_t n = piece.columns.count, first = piece.columns.first;
    const index_t offset = first / block * static_cast<index_t>(info.bytes);
    Workspace::Frame frame(thread_workspace());
    Rows r{piece,
           rows,
           n,
           values + first,
           factor.cols,
           frame.take<float>(size(kTile * n)),
           frame.take<float>(size(kTile * n))};
    std::fill_n(r.error, kTile * n, 0.F);
    for (index_t i = 0; i < rows; ++i) {
      dequantize(format, rounded + i * row_bytes + offset, r.error + i * n, size(n));
      for (index_t k = 0; k < n; ++k) r.error[i * n + k] = r.weights[i * r.ld + k] - r.error[i * n + k];
    }
    add_losses(r, chunk.rounding);
    std::fill_n(r.error, kTile * n, 0.F);
    std::fill_n(r.target, kTile * n, 0.F);
    for (index_t at = 0; at < n; at += block) {
      for (index_t panel = at / kTile; panel < (at + block) / kTile; ++panel) set_targets(r, panel, at);
      for (index_t i = 0; i < rows; ++i)
        chunk.gptq[i] +=
            round_block(format, shape, r, i, at, block,
                        out + i * row_bytes + offset + at / block * static_cast<index_t>(info.bytes));
    }
  }
  gemm_kernels<float>(active_isa()).end();
}

}  // namespace

const float* GptqFactor::Piece::panel(std::int64_t number) const {
  return panels.data() + panel_begin(number);
}

GptqFactor gptq_factor(const Hessian& hessian, double damping) {
  GptqFactor factor{.cols = hessian.cols(), .pieces = {}};
  for (std::size_t p = 0; p < hessian.pieces().size(); ++p)
    factor.pieces.push_back(factor_piece(hessian, p, damping));
  return factor;
}

GptqLoss gptq_rows(BlockFormat format, const float* values, std::int64_t rows, const GptqFactor& factor,
                   const float* importance, std::byte* out) {
  const index_t cols = factor.cols;
  const std::size_t row_bytes = block_bytes(format, size(cols));
  ensure(block_info(format).elements > 1, "GPTQ into {}", block_info(format).name);
  const index_t chunks = (rows + kTile - 1) / kTile;
  std::vector<Chunk> results(size(chunks));
  parallel_tasks(chunks, [&](index_t c) {
    const index_t first = c * kTile, count = std::min(kTile, rows - first);
    std::vector<std::byte> rounded(size(count) * row_bytes);
    quantize_rows(format, values + first * cols, count, cols, importance, rounded.data());
    std::byte* const to = out + size(first) * row_bytes;
    Chunk& result = results[size(c)];
    run_chunk(format, values + first * cols, count, factor, rounded.data(), to, result);
    for (index_t i = 0; i < count; ++i) {
      if (result.gptq[i] <= result.rounding[i]) continue;
      std::copy_n(rounded.data() + size(i) * row_bytes, row_bytes, to + size(i) * row_bytes);
      result.gptq[i] = result.rounding[i];
    }
  });
  GptqLoss sum;
  for (const Chunk& chunk : results)
    for (index_t i = 0; i < kTile; ++i) {
      sum.loss += chunk.gptq[i];
      sum.rounding += chunk.rounding[i];
    }
  return sum;
}

double hessian_loss(const GptqFactor& factor, const float* values, const float* rounded, std::int64_t rows) {
  const index_t cols = factor.cols, chunks = (rows + kTile - 1) / kTile;
  std::vector<Chunk> results(size(chunks));
  parallel_tasks(chunks, [&](index_t c) {
    const index_t first = c * kTile, count = std::min(kTile, rows - first);
    gemm_kernels<float>(active_isa()).begin();
    for (const GptqFactor::Piece& piece : factor.pieces) {
      const index_t n = piece.columns.count;
      Workspace::Frame frame(thread_workspace());
      Rows r{piece, count, n, values, cols, nullptr, frame.take<float>(size(kTile * n))};
      std::fill_n(r.error, kTile * n, 0.F);
      for (index_t i = 0; i < count; ++i)
        for (index_t k = 0; k < n; ++k) {
          const index_t at = (first + i) * cols + piece.columns.first + k;
          r.error[i * n + k] = values[at] - rounded[at];
        }
      add_losses(r, results[size(c)].rounding);
    }
    gemm_kernels<float>(active_isa()).end();
  });
  double sum = 0;
  for (const Chunk& chunk : results)
    for (const double loss : chunk.rounding) sum += loss;
  return sum;
}

}  // namespace sinew
