// Row and tile functions of every instruction set, behind one table: what the kernels do between products.
#pragma once

#include <cstdint>

#include "kernels/gemm.hpp"
#include "kernels/tile_work.hpp"

namespace sinew {

// One AdamW update as a function of gradient, moments and weight; see optimizer.hpp.
struct AdamWFactors {
  float beta1, one_less_beta1, beta2, one_less_beta2, eps, step_size, root_correction, gradient_scale, keep;
};

// A query's row of attention weights: keys before `end` of its document are seen. `lse`: log of the sum of
// exp(scale * s), `delta`: sum of d_out * out.
struct WeightRow {
  index_t end = 0;
  std::int32_t document = 0;
  float lse = 0, delta = 0;
};

template <class T>
struct VectorKernels {
  // out [rows, columns] = (accumulate ? out : 0) + scale * in
  void (*store)(const float* in, index_t ld_in, index_t rows, index_t columns, T* out, index_t ld_out,
                float scale, bool accumulate);
  // What does a tile's work.
  TileRows<T> (*work)(const TileWork<T>& work);
  // out [n] = first addend (or 0 when null) + sum over i < count of rows[i * ld], in that order.
  void (*sum_rows)(const T* rows, index_t ld, index_t count, const T* addend, index_t n, T* out);
  // out [n] = sum over i < count of terms[i], in that order.
  void (*sum_terms)(const T* const* terms, index_t count, index_t n, T* out);
  void (*widen)(const T* in, index_t n, float* out);

  // out [2 * half] = x rotated by `angle`s whose cosines and sines are cos, sin [half] (sign -1: backwards);
  // pairs (2j, 2j+1) when interleaved, else (j, j + half).
  void (*rotate)(const T* x, index_t half, const float* cos, const float* sin, float sign, bool interleaved,
                 T* out);
  void (*rotate_back)(const float* x, index_t half, const float* cos, const float* sin, bool interleaved,
                      T* out);
  // One row of attention weights. Keys [first, end) with documents[key] == document (null: all) are seen:
  // p = exp(scale * s - max), 0 elsewhere in [0, padded). Returns the sum of p; *maximum is the max of scale
  // * s.
  float (*softmax_row)(const float* s, index_t first, index_t end, index_t padded, float scale,
                       const std::int32_t* documents, std::int32_t document, T* p, float* maximum);
  // Two rows of attention weights again and of their scores' gradients: of rows `ld` apart in s and dp [2,
  // padded], p = exp(scale * s - lse), ds = scale * p * (dp - delta), both 0 for keys that are not seen. ds
  // is written by rows as s is read, and both as a pair of rows of panels of 32 keys (gemm.hpp) that are
  // `panel` elements apart.
  void (*softmax_backward)(const float* s, const float* dp, index_t ld, const WeightRow (&rows)[2],
                           index_t padded, float scale, const std::int32_t* documents, T* ds, T* p_panels,
                           T* ds_panels, index_t panel);
  float (*dot)(const T* a, const T* b, index_t n);

  // Root-mean-square norm of one row: sum = x + addend (null: x itself, and sum is not written), y = sum *
  // inverse * weight; returns inverse = 1 / sqrt(mean(sum^2) + eps).
  float (*norm_row)(const T* x, const T* addend, const T* weight, index_t n, float eps, T* sum, T* y);
  // dx = d_sum (null: 0) + gradient through the norm of x; d_weight [n] += dy * x * inverse.
  void (*norm_row_backward)(const T* x, const T* dy, const T* d_sum, const T* weight, float inverse,
                            index_t n, T* dx, float* d_weight);
  // Cross-entropy of one row of logits: returns log(sum exp) - logits[target]; d (null: not wanted) =
  // softmax - one_hot(target). d may begin where logits does; logits are overwritten.
  float (*cross_entropy_row)(float* logits, index_t n, index_t target, T* d);
  // w, m, v updated from the gradient g (null: zero); narrow (null where it is w itself): w in the weight's
  // type.
  void (*adamw)(float* w, float* m, float* v, const float* g, T* narrow, index_t n, const AdamWFactors& f);
  // The sum of squares of x [n], in doubles and in an order of its own.
  double (*sum_of_squares)(const float* x, index_t n);
  // Scores of one token: softmax of its logits, or the sigmoid of each. Backward turns the gradient of the
  // scores into that of the logits, in place.
  void (*gate_scores)(const float* logits, index_t n, bool softmax, float* scores);
  void (*gate_scores_backward)(const float* scores, index_t n, bool softmax, float* d);
  // out [rows, count] <- the columns of the `count` largest of each row of x [rows, n], largest first, of
  // equals the lowest first; NaN counts as least. 1 <= count <= min(n, kMostChosen).
  void (*choose)(const float* x, index_t ld, index_t n, index_t rows, index_t count, std::int64_t* out);
};
constexpr index_t kMostChosen = 8;

template <class T>
const VectorKernels<T>& vector_kernels(Isa isa);

// What this thread has stored past the caches is in memory before anything it stores later.
inline void publish() {
#if defined(__x86_64__)
  __builtin_ia32_sfence();
#endif
}
// Results of this many bytes do not stay in a core's caches anyway.
constexpr index_t kPastCaches = index_t{1} << 20;

}  // namespace sinew
