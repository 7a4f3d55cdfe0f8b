#include "ops/sequence_parallel.hpp"

#include <gtest/gtest.h>

#include "ops/attention.hpp"
#include "ops/embedding.hpp"
#include "ops/linear_cross_entropy.hpp"
#include "ops/ring_attention.hpp"
#include "parallel/thread_group.hpp"

namespace sinew {
namespace {

using at::Tensor;

Tensor random(at::IntArrayRef shape, int seed, at::ScalarType type = at::kDouble) {
  at::manual_seed(static_cast<std::uint64_t>(seed));
  return at::randn(shape, at::kDouble).to(type);
}
Tensor leaf(const Tensor& x) { return x.detach().clone().requires_grad_(); }
double difference(const Tensor& a, const Tensor& b) {
  return (a.to(at::kDouble) - b.to(at::kDouble)).abs().max().item<double>();
}
// Piece `rank` of dimension 1.
Tensor piece(const Tensor& x, const GroupPtr& group) {
  const auto n = x.size(1) / group->size();
  return x.narrow(1, group->rank() * n, n).contiguous();
}

TEST(SequenceParallel, ColumnThenRowParallelProjectionsAreTheWholeProduct) {
  const auto x = random({2, 12, 8}, 1), w1 = random({12, 8}, 2), w2 = random({8, 12}, 3),
             seed = random({2, 12, 8}, 4);
  const auto whole_x = leaf(x), whole_1 = leaf(w1), whole_2 = leaf(w2);
  const auto want = at::silu(whole_x.matmul(whole_1.t())).matmul(whole_2.t());
  (want * seed).sum().backward();
  for (const int size : {2, 3, 4}) {
    test::on_ranks(size, [&](const GroupPtr& group) {
      const auto width = 12 / size;
      const auto own = leaf(piece(x, group)), first = leaf(w1.narrow(0, group->rank() * width, width)),
                 second = leaf(w2.narrow(1, group->rank() * width, width));
      const auto inner = at::silu(gather_tokens(own, group).matmul(first.t()));
      const auto y = scatter_token_sum(inner.matmul(second.t()), group);
      (y * piece(seed, group)).sum().backward();
      EXPECT_LT(difference(y, piece(want, group)), 1e-12);
      EXPECT_LT(difference(own.grad(), piece(whole_x.grad(), group)), 1e-12);
      EXPECT_LT(difference(first.grad(), whole_1.grad().narrow(0, group->rank() * width, width)), 1e-12);
      EXPECT_LT(difference(second.grad(), whole_2.grad().narrow(1, group->rank() * width, width)), 1e-12);
    });
  }
}

TEST(SequenceParallel, AProcessAloneDoesNothing) {
  const auto x = random({2, 3, 4}, 1);
  EXPECT_TRUE(gather_tokens(x, nullptr).is_same(x));
  EXPECT_TRUE(scatter_token_sum(x, nullptr).is_same(x));
}

// A vocabulary that does not divide by the number of members; with and without gradients kept in place.
TEST(SequenceParallel, VocabularyCutOverMembersGivesTheSameLossAndGradients) {
  constexpr std::int64_t vocabulary = 37, hidden = 8;
  const auto table = random({vocabulary, hidden}, 5, at::kFloat),
             head = random({vocabulary, hidden}, 6, at::kFloat);
  at::manual_seed(7);
  const auto tokens = at::randint(vocabulary, {2, 12}, at::kLong);
  auto targets = at::randint(vocabulary, {2, 12}, at::kLong);
  targets[0][3] = targets[1][11] = -100;
  const auto whole_table = leaf(table), whole_head = leaf(head);
  const auto embedded = embed(whole_table, tokens);
  const auto want = linear_cross_entropy(embedded.reshape({-1, hidden}), whole_head, targets.reshape({-1}));
  (want * 0.25).backward();
  for (const int size : {2, 4}) {
    for (const bool in_place : {false, true}) {
      std::vector<Tensor> losses(static_cast<std::size_t>(size));
      test::on_ranks(size, [&](const GroupPtr& group) {
        const auto first = vocabulary * group->rank() / size,
                   rows = vocabulary * (group->rank() + 1) / size - first;
        const auto own_table = leaf(table.narrow(0, first, rows)),
                   own_head = leaf(head.narrow(0, first, rows));
        if (in_place) {
          own_table.mutable_grad() = at::zeros_like(own_table);
          own_head.mutable_grad() = at::zeros_like(own_head);
        }
        const auto x = vocabulary_embed(own_table, first, tokens, group);
        EXPECT_TRUE(at::equal(x, piece(embedded, group)));
        const auto loss = vocabulary_cross_entropy(x, own_head, first, targets, group);
        (loss * 0.25).backward();
        losses[static_cast<std::size_t>(group->rank())] = loss.detach();
        EXPECT_LT(difference(own_table.grad(), whole_table.grad().narrow(0, first, rows)), 1e-6);
        EXPECT_LT(difference(own_head.grad(), whole_head.grad().narrow(0, first, rows)), 1e-6);
      });
      EXPECT_NEAR(at::stack(losses).sum().item<double>(), want.item<double>(), 1e-4);
    }
  }
}

TEST(RingAttention, PositionsCoverTheRowAndShareTheCausalWork) {
  for (const std::int64_t size : {1, 2, 4}) {
    std::vector<int> seen(16, 0);
    for (std::int64_t rank = 0; rank < size; ++rank) {
      std::int64_t work = 0;  // keys that the queries see
      for (const auto p : ring_positions(16, size, rank)) {
        ++seen[static_cast<std::size_t>(p)];
        work += p + 1;
      }
      EXPECT_EQ(work, 16 * 17 / 2 / size);
    }
    EXPECT_EQ(seen, std::vector<int>(16, 1));
  }
}

class RingAttentionTest : public testing::TestWithParam<std::tuple<int, bool, int>> {};

TEST_P(RingAttentionTest, IsTheAttentionOfOneProcess) {
  const auto [size, masked, kv_heads] = GetParam();
  const std::int64_t rows = 2, tokens = 24, heads = 4, width = 6, value = 5;
  const auto q = random({rows, tokens, heads, width}, 1), k = random({rows, tokens, kv_heads, width}, 2),
             v = random({rows, tokens, kv_heads, value}, 3), seed = random({rows, tokens, heads, value}, 4);
  const auto documents =
      masked ? at::stack({at::arange(tokens) / 7, at::arange(tokens) / 24}).to(at::kInt) : Tensor();
  const auto wq = leaf(q), wk = leaf(k), wv = leaf(v);
  const auto want =
      attention(wq.transpose(1, 2), wk.transpose(1, 2), wv.transpose(1, 2), 0.4, documents).transpose(1, 2);
  (want * seed).sum().backward();
  test::on_ranks(size, [&, s = size, d = documents](const GroupPtr& group) {
    const auto positions = at::tensor(ring_positions(tokens, s, group->rank()));
    const auto own = [&](const Tensor& x) { return x.detach().index_select(1, positions); };
    const auto oq = leaf(own(q)), ok = leaf(own(k)), ov = leaf(own(v));
    const auto out = ring_attention(oq, ok, ov, 0.4, d, group);
    (out * own(seed)).sum().backward();
    EXPECT_LT(difference(out, own(want)), 1e-12);
    EXPECT_LT(difference(oq.grad(), own(wq.grad())), 1e-12);
    EXPECT_LT(difference(ok.grad(), own(wk.grad())), 1e-12);
    EXPECT_LT(difference(ov.grad(), own(wv.grad())), 1e-12);
  });
}

INSTANTIATE_TEST_SUITE_P(Rings, RingAttentionTest,
                         testing::Combine(testing::Values(2, 3, 4), testing::Bool(),
                                          testing::Values(1, 2, 4)));

// Longer than the blocks that scores are made in.
TEST(RingAttention, OfManyBlocks) {
  const auto q = random({1, 2400, 1, 4}, 1, at::kFloat), k = random({1, 2400, 1, 4}, 2, at::kFloat);
  const auto want = attention(q.transpose(1, 2), k.transpose(1, 2), k.transpose(1, 2), 0.5).transpose(1, 2);
  test::on_ranks(2, [&](const GroupPtr& group) {
    const auto positions = at::tensor(ring_positions(2400, 2, group->rank()));
    const auto own = [&](const Tensor& x) { return x.index_select(1, positions); };
    EXPECT_LT(difference(ring_attention(own(q), own(k), own(k), 0.5, {}, group), own(want)), 1e-5);
  });
}

}  // namespace
}  // namespace sinew
