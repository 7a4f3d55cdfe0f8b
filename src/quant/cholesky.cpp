#include "quant/cholesky.hpp"

#include <atomic>
#include <cmath>

#include "base/error.hpp"
#include "base/team.hpp"
#include "kernels/gemm.hpp"
#include "kernels/workspace.hpp"

namespace sinew {
namespace {

// A block on the diagonal: [32, 32], row stride n. In doubles, for the pivots are what may fail.
bool factor_block(float* a, index_t n) {
  double l[kTile][kTile];
  for (index_t j = 0; j < kTile; ++j) {
    for (index_t i = j; i < kTile; ++i) {
      double sum = a[i * n + j];
      for (index_t k = 0; k < j; ++k) sum -= l[i][k] * l[j][k];
      if (i == j) {
        if (!(sum > 0)) return false;
        l[j][j] = std::sqrt(sum);
      } else {
        l[i][j] = sum / l[j][j];
      }
      a[i * n + j] = static_cast<float>(l[i][j]);
    }
  }
  return true;
}

// x [32] of one row below: x L^T = row.
void solve_row(const float* block, index_t n, float* row) {
  for (index_t j = 0; j < kTile; ++j) {
    double sum = row[j];
    for (index_t k = 0; k < j; ++k) sum -= static_cast<double>(row[k]) * block[j * n + k];
    row[j] = static_cast<float>(sum / block[j * n + j]);
  }
}

}  // namespace

bool cholesky(float* a, std::int64_t n) {
  ensure(n % kTile == 0, "{} columns are no multiple of {}", n, kTile);
  const auto& gemm = gemm_kernels<float>(active_isa());
  Workspace::Frame frame(thread_workspace());
  float* const panel = frame.take<float>(static_cast<std::size_t>(panel_size<float>(n)));
  for (index_t at = 0; at < n; at += kTile) {
    // What the columns before take off this one: rows at .. n-1 times row block `at`.
    if (at > 0) gemm.pack_b_transposed(a + at * n, n, kTile, at, panel);
    const index_t tiles = (n - at) / kTile;
    const auto subtract = [&](index_t tile) {
      if (at == 0) return;
      float* const rows = a + (at + tile * kTile) * n;
      alignas(64) float c[kTile * kTile];
      gemm.begin();
      gemm.block(rows, n, kTile, panel, at, c, kTile, false);
      gemm.end();
      for (index_t i = 0; i < kTile; ++i)
        for (index_t j = 0; j < kTile; ++j) rows[i * n + at + j] -= c[i * kTile + j];
    };
    subtract(0);
    float* const block = a + at * n + at;
    if (!factor_block(block, n)) return false;
    parallel_tasks(tiles - 1, [&](index_t t) {
      subtract(t + 1);
      float* const rows = a + (at + (t + 1) * kTile) * n + at;
      for (index_t i = 0; i < kTile; ++i) solve_row(block, n, rows + i * n);
    });
  }
  return true;
}

}  // namespace sinew
