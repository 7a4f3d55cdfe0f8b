// What the kernel tests share: random matrices of any element type, and a way to run on one thread.
#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <type_traits>
#include <vector>

#include "base/random.hpp"
#include "base/threads.hpp"
#include "kernels/gemm.hpp"

namespace sinew::test {

inline void assign(float& out, double x) { out = static_cast<float>(x); }
inline void assign(bf16& out, double x) { out = to_bf16(static_cast<float>(x)); }

template <class T>
std::vector<T> random_matrix(index_t count, std::uint64_t seed, double scale = 1) {
  const Random random(seed, "kernel test");
  std::vector<T> out(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < out.size(); ++i) assign(out[i], scale * random.normal(i));
  return out;
}

template <class T>
std::vector<float> widened(const std::vector<T>& in) {
  std::vector<float> out;
  for (const T x : in) out.push_back(to_float(x));
  return out;
}

// Relative error of one rounding to T.
template <class T>
constexpr double rounding() {
  return std::is_same_v<T, bf16> ? 1.0 / 256 : 1e-7;
}

// |got - want| / |want| in the Euclidean norm, where |want| counts as 1 an element at least: the numbers of
// these tests are of order one, and a small one among them may be what cancellation left.
template <class T>
double relative_error(const std::vector<T>& got, const std::vector<double>& want) {
  double difference = 0, size = 0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    const double d = static_cast<double>(to_float(got[i])) - want[i];
    difference += d * d;
    size += want[i] * want[i];
  }
  return std::sqrt(difference / std::max(size, static_cast<double>(want.size()) + 1e-12));
}

// Nested loops run on the calling thread: so does all of `body` here.
inline void on_one_thread(const std::function<void()>& body) {
  parallel_for(2, 1, [&](std::size_t begin, std::size_t) {
    if (begin == 0) body();
  });
}

}  // namespace sinew::test
