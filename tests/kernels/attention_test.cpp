#include "kernels/attention.hpp"

#include <gtest/gtest.h>

#include "kernels/kernel_support.hpp"
#include "support/property.hpp"

namespace sinew {
namespace {

using test::random_matrix;
using test::relative_error;

// Heads lie side by side in a token's row; the gradients of k_rotated have one head when it is shared.
struct Shape {
  index_t rows, tokens, kv_heads, group, plain, rotated, value;
  bool shared, turned, interleaved;
  std::vector<std::int32_t> documents;
  index_t heads() const { return kv_heads * group; }
  index_t key() const { return plain + rotated; }
  index_t rotated_heads() const { return shared ? 1 : kv_heads; }
};

template <class T>
struct Data {
  std::vector<T> q, k_plain, k_rotated, v, d_out;
  std::vector<float> cos, sin;
};

template <class T>
Data<T> make(const Shape& s) {
  const index_t n = s.rows * s.tokens;
  Data<T> d{random_matrix<T>(n * s.heads() * s.key(), 1),
            random_matrix<T>(n * s.kv_heads * s.plain, 2),
            random_matrix<T>(n * s.rotated_heads() * s.rotated, 3),
            random_matrix<T>(n * s.kv_heads * s.value, 4),
            random_matrix<T>(n * s.heads() * s.value, 5),
            {},
            {}};
  for (index_t t = 0; t < s.tokens; ++t)
    for (index_t j = 0; j < s.rotated / 2; ++j) {
      d.cos.push_back(static_cast<float>(std::cos(0.3 * static_cast<double>(t * (j + 1)))));
      d.sin.push_back(static_cast<float>(std::sin(0.3 * static_cast<double>(t * (j + 1)))));
    }
  return d;
}

struct Want {
  std::vector<double> out, q, k_plain, k_rotated, v;
};

// x [rotated] turned by position t (backwards for sign -1), in place.
template <class T>
void turn(const Shape& s, const Data<T>& d, index_t t, double* x, double sign) {
  const index_t half = s.rotated / 2;
  for (index_t j = 0; j < half && s.turned; ++j) {
    double &a = x[s.interleaved ? 2 * j : j], &b = x[s.interleaved ? 2 * j + 1 : j + half];
    const double c = d.cos[t * half + j], n = sign * d.sin[t * half + j], was = a;
    a = was * c - b * n;
    b = was * n + b * c;
  }
}

template <class T>
Want reference(const Shape& s, const Data<T>& d, double scale) {
  const index_t D = s.key(), V = s.value, H = s.heads(), n_all = s.rows * s.tokens;
  Want w;
  w.out.assign(n_all * H * V, 0), w.q.assign(d.q.size(), 0), w.k_plain.assign(d.k_plain.size(), 0);
  w.k_rotated.assign(d.k_rotated.size(), 0), w.v.assign(d.v.size(), 0);
  const auto head_of = [&](index_t n, index_t h, bool query) {
    std::vector<double> x(D);
    const index_t g = s.shared ? 0 : h;
    for (index_t i = 0; i < D; ++i)
      x[i] = query         ? to_float(d.q[(n * H + h) * D + i])
             : i < s.plain ? to_float(d.k_plain[(n * s.kv_heads + h) * s.plain + i])
                           : to_float(d.k_rotated[(n * s.rotated_heads() + g) * s.rotated + i - s.plain]);
    turn(s, d, n % s.tokens, x.data() + s.plain, 1);
    return x;
  };
  for (index_t row = 0; row < s.rows; ++row)
    for (index_t h = 0; h < H; ++h)
      for (index_t t = 0; t < s.tokens; ++t) {
        const index_t n = row * s.tokens + t, kv = h / s.group;
        const auto q = head_of(n, h, true);
        std::vector<double> p(t + 1), dp(t + 1);
        double sum = 0, delta = 0;
        for (index_t u = 0; u <= t; ++u) {
          const index_t m = row * s.tokens + u;
          if (!s.documents.empty() && s.documents[m] != s.documents[n]) continue;
          const auto k = head_of(m, kv, false);
          double score = 0;
          for (index_t i = 0; i < D; ++i) score += q[i] * k[i];
          sum += p[u] = std::exp(scale * score);
        }
        for (index_t u = 0; u <= t; ++u) {
          p[u] /= sum;
          for (index_t i = 0; i < V; ++i) {
            const index_t at = ((row * s.tokens + u) * s.kv_heads + kv) * V + i;
            const double dy = to_float(d.d_out[(n * H + h) * V + i]), v = to_float(d.v[at]);
            w.out[(n * H + h) * V + i] += p[u] * v;
            w.v[at] += p[u] * dy;
            dp[u] += dy * v;
          }
          delta += p[u] * dp[u];
        }
        std::vector<double> dq(D);
        for (index_t u = 0; u <= t; ++u) {
          const index_t m = row * s.tokens + u;
          const double ds = scale * p[u] * (dp[u] - delta);
          if (ds == 0) continue;
          const auto k = head_of(m, kv, false);
          std::vector<double> dk(D);
          for (index_t i = 0; i < D; ++i) {
            dq[i] += ds * k[i];
            dk[i] = ds * q[i];
          }
          turn(s, d, u, dk.data() + s.plain, -1);
          for (index_t i = 0; i < D; ++i) {
            if (i < s.plain)
              w.k_plain[(m * s.kv_heads + kv) * s.plain + i] += dk[i];
            else
              w.k_rotated[(m * s.rotated_heads() + (s.shared ? 0 : kv)) * s.rotated + i - s.plain] += dk[i];
          }
        }
        turn(s, d, t, dq.data() + s.plain, -1);
        for (index_t i = 0; i < D; ++i) w.q[(n * H + h) * D + i] = dq[i];
      }
  return w;
}

template <class T>
struct Got {
  std::vector<T> out, q, k_plain, k_rotated, v;
};

template <class T>
Got<T> run(const Shape& s, const Data<T>& d, double scale, Isa isa) {
  const index_t D = s.key(), H = s.heads();
  AttentionSizes sizes{.rows = s.rows,
                       .tokens = s.tokens,
                       .heads = H,
                       .kv_heads = s.kv_heads,
                       .plain = s.plain,
                       .rotated = s.rotated,
                       .value = s.value,
                       .scale = scale,
                       .cos = s.turned ? d.cos.data() : nullptr,
                       .sin = d.sin.data(),
                       .interleaved = s.interleaved,
                       .documents = s.documents.empty() ? nullptr : s.documents.data()};
  const index_t rotated_head = s.shared ? 0 : s.rotated, rotated_token = s.rotated_heads() * s.rotated;
  const AttentionInputs<T> in{{d.q.data(), H * D, D},
                              {d.k_plain.data(), s.kv_heads * s.plain, s.plain},
                              {d.k_rotated.data(), rotated_token, rotated_head},
                              {d.v.data(), s.kv_heads * s.value, s.value}};
  Got<T> g;
  g.out.resize(d.d_out.size()), g.q.resize(d.q.size()), g.k_plain.resize(d.k_plain.size());
  g.k_rotated.resize(d.k_rotated.size()), g.v.resize(d.v.size());
  std::vector<float> lse(s.rows * H * s.tokens);
  attention_forward<T>(isa, sizes, in, {g.out.data(), H * s.value, s.value}, lse.data());
  attention_backward<T>(isa, sizes, in, {g.out.data(), H * s.value, s.value},
                        {d.d_out.data(), H * s.value, s.value}, lse.data(),
                        {{g.q.data(), H * D, D},
                         {g.k_plain.data(), s.kv_heads * s.plain, s.plain},
                         {g.k_rotated.data(), rotated_token, rotated_head},
                         {g.v.data(), s.kv_heads * s.value, s.value}});
  return g;
}

// Euclidean relative error: fp32 sums; or bf16 weights and outputs, and bf16 rotated keys and queries, whose
// rounding of about 2^-9 moves the scores.
template <class T>
void check(const Shape& s) {
  const double scale = 1 / std::sqrt(static_cast<double>(s.key())),
               bound = std::is_same_v<T, bf16> ? 0.025 : 5e-6;
  const Data<T> d = make<T>(s);
  const Want want = reference(s, d, scale);
  for (const Isa isa : available_isas()) {
    const Got<T> got = run(s, d, scale, isa);
    for (const double error :
         {relative_error(got.out, want.out), relative_error(got.q, want.q),
          relative_error(got.k_plain, want.k_plain), relative_error(got.k_rotated, want.k_rotated),
          relative_error(got.v, want.v)}) {
      test::case_log() << isa_name(isa) << " error " << error << '\n';
      HOLDS(error <= bound);
    }
  }
}

PROPERTY(Attention, ForwardAndGradientsMatchDoubles) {
  Shape s{.rows = test::draw<index_t>(1, 3),
          .tokens = test::draw<index_t>(1, 50),
          .kv_heads = test::draw<index_t>(1, 3),
          .group = test::draw<index_t>(1, 3),
          .plain = test::draw<index_t>(0, 40),
          .rotated = 2 * test::draw<index_t>(1, 12),
          .value = test::draw<index_t>(1, 40),
          .shared = test::draw_bool(),
          .turned = test::draw_bool(),
          .interleaved = test::draw_bool(),
          .documents = {}};
  if (test::draw_bool())
    s.documents = test::draw_list(static_cast<std::size_t>(s.rows * s.tokens),
                                  [] { return test::draw<std::int32_t>(0, 3); });
  if (s.kv_heads == 1) s.shared = false;
  check<float>(s);
  check<bf16>(s);
}

TEST(Attention, LongRowsOfManyDocumentsAndTheSameBitsOnOneThread) {
  Shape s{.rows = 1,
          .tokens = 700,
          .kv_heads = 2,
          .group = 1,
          .plain = 16,
          .rotated = 8,
          .value = 12,
          .shared = true,
          .turned = true,
          .interleaved = true,
          .documents = {}};
  check<bf16>(s);
  for (index_t t = 0; t < s.tokens; ++t) s.documents.push_back(static_cast<std::int32_t>(t / 290));
  check<float>(s);
  const auto d = make<bf16>(s);
  const auto many = run(s, d, 0.2, best_isa());
  Got<bf16> one;
  test::on_one_thread([&] { one = run(s, d, 0.2, best_isa()); });
  const auto same = [](const std::vector<bf16>& a, const std::vector<bf16>& b) {
    return std::equal(a.begin(), a.end(), b.begin(), [](bf16 x, bf16 y) { return x.bits == y.bits; });
  };
  EXPECT_TRUE(same(many.out, one.out) && same(many.q, one.q) && same(many.k_rotated, one.k_rotated) &&
              same(many.k_plain, one.k_plain) && same(many.v, one.v));
}

}  // namespace
}  // namespace sinew
