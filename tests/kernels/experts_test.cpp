#include "kernels/experts.hpp"

#include <gtest/gtest.h>

#include "kernels/kernel_support.hpp"
#include "support/property.hpp"

namespace sinew {
namespace {

using test::random_matrix;
using test::relative_error;

// One layer of random numbers; weights of expert e are slices of one vector.
template <class T>
struct ExpertsCase {
  index_t tokens, top_k, experts, hidden, width;
  std::vector<std::int64_t> choice;
  std::vector<T> x, dy, gate, up, down, addend;
  std::vector<float> weight;
  bool weighted, added, accumulate;
};

template <class T>
ExpertsCase<T> make_case(index_t tokens, index_t top_k, index_t experts, index_t hidden, index_t width,
                         std::vector<std::int64_t> choice, int flags) {
  const double scale = 1 / std::sqrt(static_cast<double>(hidden));
  return {tokens,
          top_k,
          experts,
          hidden,
          width,
          std::move(choice),
          random_matrix<T>(tokens * hidden, 1),
          random_matrix<T>(tokens * hidden, 2),
          random_matrix<T>(experts * width * hidden, 3, scale),
          random_matrix<T>(experts * width * hidden, 4, scale),
          random_matrix<T>(experts * width * hidden, 5, scale),
          random_matrix<T>(tokens * hidden, 6),
          random_matrix<float>(tokens * top_k, 7),
          (flags & 1) != 0,
          (flags & 2) != 0,
          (flags & 4) != 0};
}

struct Want {
  std::vector<double> y, dx, d_weight, d_gate, d_up, d_down;
};

// The same layer, one slot after another, in doubles.
template <class T>
Want reference(const ExpertsCase<T>& c, double start) {
  const index_t H = c.hidden, I = c.width;
  Want w;
  for (index_t i = 0; i < c.tokens * H; ++i) w.y.push_back(c.added ? to_float(c.addend[i]) : 0);
  w.dx = w.y;
  w.d_weight.assign(c.choice.size(), 0);
  w.d_gate.assign(c.gate.size(), c.accumulate ? start : 0);
  w.d_up = w.d_down = w.d_gate;
  for (std::size_t s = 0; s < c.choice.size(); ++s) {
    if (c.choice[s] < 0) continue;
    const index_t t = static_cast<index_t>(s) / c.top_k, base = c.choice[s] * I * H;
    const double weight = c.weighted ? c.weight[s] : 1;
    for (index_t i = 0; i < I; ++i) {
      double g = 0, u = 0, d_act = 0;
      for (index_t h = 0; h < H; ++h) {
        g += static_cast<double>(to_float(c.gate[base + i * H + h])) * to_float(c.x[t * H + h]);
        u += static_cast<double>(to_float(c.up[base + i * H + h])) * to_float(c.x[t * H + h]);
        d_act += static_cast<double>(to_float(c.down[base + h * I + i])) * to_float(c.dy[t * H + h]);
      }
      const double sigmoid = 1 / (1 + std::exp(-g)), silu = g * sigmoid, act = silu * u;
      const double du = weight * d_act * silu, dg = weight * d_act * u * sigmoid * (1 + g * (1 - sigmoid));
      w.d_weight[s] += d_act * act;
      for (index_t h = 0; h < H; ++h) {
        const double x = to_float(c.x[t * H + h]), dy = to_float(c.dy[t * H + h]);
        w.y[t * H + h] += weight * act * to_float(c.down[base + h * I + i]);
        w.dx[t * H + h] += dg * to_float(c.gate[base + i * H + h]) + du * to_float(c.up[base + i * H + h]);
        w.d_gate[base + i * H + h] += dg * x;
        w.d_up[base + i * H + h] += du * x;
        w.d_down[base + h * I + i] += weight * act * dy;
      }
    }
  }
  return w;
}

template <class T>
struct Got {
  std::vector<T> y, dx;
  std::vector<float> d_weight, d_gate, d_up, d_down;
  bool operator==(const Got& o) const {
    const auto same = [](const std::vector<T>& a, const std::vector<T>& b) {
      return std::equal(a.begin(), a.end(), b.begin(), [](T p, T q) { return to_float(p) == to_float(q); });
    };
    return same(y, o.y) && same(dx, o.dx) && d_weight == o.d_weight && d_gate == o.d_gate && d_up == o.d_up &&
           d_down == o.d_down;
  }
};

template <class T>
Got<T> run(const ExpertsCase<T>& c, Isa isa, float start) {
  std::vector<const T*> gate, up, down;
  Got<T> g;
  g.d_gate.assign(c.gate.size(), start);
  g.d_up = g.d_down = g.d_gate;
  std::vector<float*> d_gate, d_up, d_down;
  for (index_t e = 0; e < c.experts; ++e) {
    const index_t at = e * c.width * c.hidden;
    gate.push_back(c.gate.data() + at), up.push_back(c.up.data() + at), down.push_back(c.down.data() + at);
    d_gate.push_back(g.d_gate.data() + at), d_up.push_back(g.d_up.data() + at);
    d_down.push_back(g.d_down.data() + at);
  }
  const ExpertMatrices<T> weights{c.hidden, c.width, gate.data(), up.data(), down.data()};
  const ExpertGradients gradients{d_gate.data(), d_up.data(), d_down.data(), c.accumulate};
  ExpertRows rows;
  sort_by_expert(c.choice.data(), c.tokens, c.top_k, c.experts, rows);
  g.y.resize(c.x.size()), g.dx.resize(c.x.size());
  g.d_weight.assign(c.choice.size(), 77);
  std::vector<T> saved(static_cast<std::size_t>(expert_saved_size(weights, rows.rows())));
  const T* const addend = c.added ? c.addend.data() : nullptr;
  const float* const weight = c.weighted ? c.weight.data() : nullptr;
  experts_forward<T>(isa, weights, rows, c.x.data(), weight, addend, g.y.data(), nullptr);
  const auto inference = g.y;
  experts_forward(isa, weights, rows, c.x.data(), weight, addend, g.y.data(), saved.data());
  for (std::size_t i = 0; i < g.y.size(); ++i) EXPECT_EQ(to_float(g.y[i]), to_float(inference[i]));
  experts_backward(isa, weights, rows, c.x.data(), c.dy.data(), weight, saved.data(), addend, g.dx.data(),
                   g.d_weight.data(), &gradients);
  return g;
}

// Relative error of every result, in the Euclidean norm: fp32 sums, or one rounding to bf16 at each of the
// few places that keep bf16 (products, activations, slots).
template <class T>
void check(const ExpertsCase<T>& c) {
  const double bound = std::is_same_v<T, bf16> ? 0.03 : 3e-6;
  constexpr float kStart = 0.25F;
  const Want want = reference(c, kStart);
  for (const Isa isa : available_isas()) {
    const Got<T> got = run(c, isa, kStart);
    for (const double error :
         {relative_error(got.y, want.y), relative_error(got.dx, want.dx),
          relative_error(got.d_weight, want.d_weight), relative_error(got.d_gate, want.d_gate),
          relative_error(got.d_up, want.d_up), relative_error(got.d_down, want.d_down)}) {
      test::case_log() << isa_name(isa) << " error " << error << '\n';
      HOLDS(error <= bound);
    }
  }
}

PROPERTY(Experts, ForwardAndGradientsMatchDoubles) {
  const auto tokens = test::draw<index_t>(1, 50), experts = test::draw<index_t>(1, 5);
  const auto top_k = test::draw<index_t>(1, 4), flags = test::draw<index_t>(0, 8);
  const auto hidden = test::draw<index_t>(1, 70), width = test::draw<index_t>(1, 50);
  // From -1 (dropped) on; narrow ranges leave experts empty or send every token to one.
  const auto low = test::draw<std::int64_t>(-1, experts);
  const auto choice = test::draw_list(static_cast<std::size_t>(tokens * top_k),
                                      [&] { return test::draw<std::int64_t>(low, experts); });
  check(make_case<float>(tokens, top_k, experts, hidden, width, choice, static_cast<int>(flags)));
  check(make_case<bf16>(tokens, top_k, experts, hidden, width, choice, static_cast<int>(flags)));
}

template <class C>
void same_on_one_thread(const C& c) {
  const auto many = run(c, best_isa(), 0);
  decltype(run(c, best_isa(), 0)) one;
  test::on_one_thread([&] { one = run(c, best_isa(), 0); });
  EXPECT_TRUE(many == one);
}

TEST(Experts, AnExpertWithMostTokensIsSharedAndGivesTheSameBitsOnOneThread) {
  std::vector<std::int64_t> choice;
  for (std::int64_t s = 0; s < 2 * 1200; ++s) choice.push_back(s % 2 == 0 || s % 12 == 1 ? 1 : s / 2 % 4);
  const auto c = make_case<bf16>(1200, 2, 4, 40, 24, choice, 1);
  check(c);
  same_on_one_thread(c);
}

// What a quarter of a thread's share is depends on the number of threads: expert 1 is shared by two and whole
// on one.
TEST(Experts, WhetherAnExpertIsSharedChangesNoBit) {
  std::vector<std::int64_t> choice;
  for (std::int64_t s = 0; s < 6000; ++s) choice.push_back(s % 24 < 5 ? 1 : s % 3 == 1 ? 3 : s % 3);
  same_on_one_thread(make_case<bf16>(6000, 1, 4, 40, 24, choice, 1));
  same_on_one_thread(make_case<float>(6000, 1, 4, 40, 24, choice, 1));
}

// y and what forward keeps of rows [begin, end) of x [.., hidden] for one network of weights 0.
template <class T>
std::pair<std::vector<T>, std::vector<T>> network(const ExpertMatrices<T>& weights, const std::vector<T>& x,
                                                  index_t begin, index_t end) {
  ExpertRows rows;
  all_to_one(end - begin, rows);
  std::vector<T> y(static_cast<std::size_t>((end - begin) * weights.hidden)),
      saved(static_cast<std::size_t>(expert_saved_size(weights, end - begin)));
  experts_forward<T>(best_isa(), weights, rows, x.data() + begin * weights.hidden, nullptr, nullptr, y.data(),
                     saved.data());
  return {y, saved};
}

// Many rows go over the panels of a wide network group by group, few rows over all of them.
template <class T>
void same_by_groups(index_t width) {
  constexpr index_t kHidden = 512, kRows = 1100, kCut = 608;  // a whole number of blocks
  const auto gate = random_matrix<T>(width * kHidden, 1, 0.05),
             up = random_matrix<T>(width * kHidden, 2, 0.05),
             down = random_matrix<T>(width * kHidden, 3, 0.05), x = random_matrix<T>(kRows * kHidden, 4);
  const T* const one[] = {gate.data(), up.data(), down.data()};
  const ExpertMatrices<T> weights{kHidden, width, one, one + 1, one + 2};
  const auto all = network(weights, x, 0, kRows);
  auto parts = network(weights, x, 0, kCut);
  const auto rest = network(weights, x, kCut, kRows);
  parts.first.insert(parts.first.end(), rest.first.begin(), rest.first.end());
  parts.second.insert(parts.second.end(), rest.second.begin(), rest.second.end());
  const auto same = [](T a, T b) { return to_float(a) == to_float(b); };
  EXPECT_TRUE(std::equal(all.first.begin(), all.first.end(), parts.first.begin(), parts.first.end(), same));
  EXPECT_TRUE(
      std::equal(all.second.begin(), all.second.end(), parts.second.begin(), parts.second.end(), same));
}

TEST(Experts, AWideNetworkGivesTheSameBitsForManyRowsAsForFew) {
  same_by_groups<bf16>(480);
  same_by_groups<bf16>(1000);
  same_by_groups<float>(300);
}

}  // namespace
}  // namespace sinew
