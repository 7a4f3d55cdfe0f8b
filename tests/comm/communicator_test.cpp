#include "comm/communicator.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <csignal>
#include <numeric>
#include <thread>

#include "base/error.hpp"
#include "comm/mesh.hpp"
#include "comm/ranks.hpp"
#include "config/traffic_formulas.hpp"

namespace sinew {
namespace {

using test::run_ranks;

std::vector<int> everyone(int size) {
  std::vector<int> ranks(static_cast<std::size_t>(size));
  std::iota(ranks.begin(), ranks.end(), 0);
  return ranks;
}

at::Tensor numbers(std::int64_t count, int rank, at::ScalarType type) {
  return (at::arange(count, at::kLong) * 7 % 11 + 100 * rank % 37).to(type);
}

TEST(Communicator, ReducesEveryTypeInTheOrderOfRanks) {
  for (const int size : {2, 3, 4}) {
    run_ranks(size, [&](const std::shared_ptr<Endpoint>& endpoint) {
      Communicator c(endpoint, everyone(size), "world", 31);
      for (const auto type : {at::kFloat, at::kDouble, at::kBFloat16, at::kHalf, at::kLong, at::kInt}) {
        for (const std::int64_t count : {1, 5, 1024, 1025, 4099}) {
          auto expected = numbers(count, 0, type).to(at::kDouble);
          auto largest = expected.clone();
          for (int r = 1; r < size; ++r) {
            expected += numbers(count, r, type).to(at::kDouble);
            largest = at::maximum(largest, numbers(count, r, type).to(at::kDouble));
          }
          auto x = numbers(count, c.rank(), type);
          c.all_reduce(x);
          EXPECT_TRUE(x.equal(expected.to(type))) << x.dtype() << " " << count;
          auto y = numbers(count, c.rank(), type);
          c.all_reduce(y, Reduction::max);
          EXPECT_TRUE(y.equal(largest.to(type))) << y.dtype() << " " << count;

          const auto whole = numbers(count * size, c.rank(), type);
          auto piece = at::empty({count}, whole.options());
          c.reduce_scatter(piece, whole);
          auto sum = at::zeros({count}, at::kDouble);
          for (int r = 0; r < size; ++r)
            sum += numbers(count * size, r, type).narrow(0, c.rank() * count, count).to(at::kDouble);
          EXPECT_TRUE(piece.equal(sum.to(type)));

          auto gathered = at::empty({count * size}, whole.options());
          c.all_gather(gathered, numbers(count, c.rank(), type));
          for (int r = 0; r < size; ++r)
            EXPECT_TRUE(gathered.narrow(0, r * count, count).equal(numbers(count, r, type)));
        }
      }
    });
  }
}

// Row i that rank a sends to rank b is (a, b, i). Some counts are zero, and one rank sends and gets nothing.
TEST(Communicator, AllToAllTakesUnevenAndEmptySplits) {
  constexpr int size = 4;
  run_ranks(size, [](const std::shared_ptr<Endpoint>& endpoint) {
    Communicator c(endpoint, everyone(size), "expert", 32);
    const auto rows = [](int from, int to) -> std::int64_t {
      return from == 2 || to == 2 ? 0 : (from * 3 + to * 5) % 4;
    };
    for (const auto type : {at::kFloat, at::kBFloat16, at::kByte, at::kBool}) {
      std::vector<std::int64_t> in_rows, out_rows;
      std::vector<at::Tensor> pieces{at::zeros({0, 3}, type)}, expected{at::zeros({0, 3}, type)};
      for (int other = 0; other < size; ++other) {
        in_rows.push_back(rows(c.rank(), other));
        out_rows.push_back(rows(other, c.rank()));
        for (std::int64_t i = 0; i < in_rows.back(); ++i)
          pieces.push_back(at::tensor({c.rank(), other, static_cast<int>(i)}).to(type).view({1, 3}));
        for (std::int64_t i = 0; i < out_rows.back(); ++i)
          expected.push_back(at::tensor({other, c.rank(), static_cast<int>(i)}).to(type).view({1, 3}));
      }
      const auto in = at::cat(pieces), want = at::cat(expected);
      const auto out = at::empty_like(want);
      const auto work = c.all_to_all_async(out, in, out_rows, in_rows);
      work->wait();
      EXPECT_TRUE(out.equal(want));
    }
  });
}

TEST(Communicator, MessagesAndBroadcastsArriveWhileOthersAreUnderWay) {
  constexpr int size = 3;
  run_ranks(size, [](const std::shared_ptr<Endpoint>& endpoint) {
    Communicator c(endpoint, everyone(size), "pipeline", 1);
    const int next = (c.rank() + 1) % size, last = (c.rank() + size - 1) % size;
    auto sum = at::full({3000}, c.rank() + 1.0);
    const auto reduction = c.all_reduce_async(sum);
    auto first = at::empty({4}), second = at::empty({4});
    const auto a = c.send_async(at::full({4}, 10.0 * c.rank()), next, 7);
    const auto b = c.send_async(at::full({4}, 10.0 * c.rank() + 1), next, 8);
    c.receive(second, last, 8);  // not in the order sent
    c.receive(first, last, 7);
    a->wait();
    b->wait();
    EXPECT_EQ(first[0].item<float>(), 10.0F * static_cast<float>(last));
    EXPECT_EQ(second[3].item<float>(), 10.0F * static_cast<float>(last) + 1);
    auto told = at::full({2}, c.rank() == 1 ? 5.0 : 0.0);
    c.broadcast(told, 1);
    EXPECT_EQ(told[1].item<float>(), 5);
    reduction->wait();
    EXPECT_TRUE(sum.equal(at::full({3000}, 6.0)));
    c.barrier();
  });
}

TEST(Communicator, CountsWhatTheFormulasSay) {
  constexpr int size = 4;
  run_ranks(
      size,
      [](const std::shared_ptr<Endpoint>& endpoint) {
        Communicator c(endpoint, everyone(size), "world", 31);
        const std::int64_t rank = c.rank();
        for (const std::int64_t n : {10, 4001}) {
          endpoint->traffic().reset();
          c.all_reduce(at::ones({n}));
          const auto t = endpoint->traffic().of("world", "all_reduce");
          EXPECT_EQ(t.calls, 1);
          EXPECT_EQ(t.bytes(), all_reduce_bytes(n, size, rank, 4));
        }
        c.all_gather(at::empty({40}, at::kBFloat16), at::ones({10}, at::kBFloat16));
        const auto g = endpoint->traffic().of("world", "all_gather");
        EXPECT_EQ(g.bytes(), all_gather_bytes(10, size, 2));
        EXPECT_EQ(g.intra_bytes, 20);  // one of the three others shares the node
        EXPECT_EQ(g.inter_bytes, 40);
        c.reduce_scatter(at::empty({10}), at::ones({40}));
        EXPECT_EQ(endpoint->traffic().of("world", "reduce_scatter").bytes(),
                  reduce_scatter_bytes(10, size, 4));
      },
      2);
}

TEST(Communicator, SaysWhoDidNotComeAndInWhat) {
  try {
    run_ranks(
        2,
        [](const std::shared_ptr<Endpoint>& endpoint) {
          Communicator c(endpoint, everyone(2), "expert", 32);
          if (c.rank() == 1) return;  // leaves
          c.all_reduce(at::ones({4}));
        },
        0, 2);
    FAIL() << "nobody missed rank 1";
  } catch (const Error& error) {
    const std::string text = error.what();
    EXPECT_NE(text.find("rank 0: all_reduce of group expert"), std::string::npos) << text;
    EXPECT_NE(text.find("from rank 1"), std::string::npos) << text;
    EXPECT_EQ(text.find('\n'), std::string::npos) << text;
  }
}

// Whether a write meets a closed socket is a matter of microseconds; that it must not kill us is not.
TEST(Communicator, WritingToARankThatLeftRaisesNoSignal) {
  std::signal(SIGPIPE, SIG_DFL);
  // Both meet before one leaves: to leave while the other connects is an error, and another test's matter.
  run_ranks(2, [](const std::shared_ptr<Endpoint>& endpoint) {
    Communicator(endpoint, everyone(2), "world", 31).barrier();
  });
  EXPECT_EQ(std::signal(SIGPIPE, SIG_IGN), SIG_IGN);
}

// After a rank is gone the others form new groups over the same store, in the processes that they are.
TEST(Communicator, ANewGenerationNeedsNoNewProcess) {
  at::set_num_threads(1);
  const auto store = c10::make_intrusive<c10d::HashStore>();
  std::vector<double> sums(3, 0);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < 3; ++rank) {
    threads.emplace_back([&, rank] {
      EndpointOptions options;
      options.rank = rank;
      options.size = 3;
      options.timeout = 20;
      {
        Communicator all(connect(store, options), everyone(3), "world", 31);
        all.barrier();
      }
      if (rank == 2) return;
      options.size = 2;
      options.generation = 1;
      Communicator rest(connect(store, options), everyone(2), "world", 31);
      const auto x = at::full({1}, rank + 1.0);
      rest.all_reduce(x);
      sums[static_cast<std::size_t>(rank)] = x.item<double>();
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(sums, (std::vector<double>{3, 3, 0}));
}

// Every pair of ranks in one group agrees on its members; extents multiply; node mates are on fast axes.
TEST(Mesh, GroupsAgree) {
  Layout layout;
  layout.data = 2;
  layout.shard = 1;
  layout.context = 1;
  layout.tensor = 2;
  layout.pipeline = 2;
  layout.expert = 4;
  run_ranks(
      8,
      [&](const std::shared_ptr<Endpoint>& endpoint) {
        Mesh mesh(endpoint, layout);
        const int r = mesh.rank();
        EXPECT_EQ(mesh.group(Axis::tensor)->ranks(), (std::vector<int>{r / 2 * 2, r / 2 * 2 + 1}));
        EXPECT_EQ(mesh.group(Axis::pipeline)->ranks(), (std::vector<int>{r % 4, r % 4 + 4}));
        EXPECT_EQ(mesh.batch()->ranks(), (std::vector<int>{r / 4 * 4 + r % 2, r / 4 * 4 + r % 2 + 2}));
        EXPECT_EQ(mesh.stage()->size(), 4);
        EXPECT_EQ(mesh.expert()->ranks(), mesh.stage()->ranks());
        EXPECT_EQ(mesh.expert_replicas()->ranks(), std::vector<int>{r});
        EXPECT_EQ(mesh.expert_in_node()->size(), 2);
        EXPECT_EQ(mesh.expert_across_nodes()->ranks(),
                  (std::vector<int>{r / 4 * 4 + r % 2, r / 4 * 4 + r % 2 + 2}));
        // All groups of one process work side by side.
        auto one = at::ones({1}), two = at::ones({1}), three = at::ones({1});
        const auto a = mesh.group(Axis::tensor)->all_reduce_async(one);
        const auto b = mesh.stage()->all_reduce_async(two);
        mesh.world()->all_reduce(three);
        b->wait();
        a->wait();
        EXPECT_EQ(one.item<float>(), 2);
        EXPECT_EQ(two.item<float>(), 4);
        EXPECT_EQ(three.item<float>(), 8);
      },
      2);
}

TEST(Mesh, ExpertsAreSpreadOverTheirReplicas) {
  Layout layout;
  layout.data = 2;
  layout.shard = 4;
  layout.expert = 2;
  run_ranks(8, [&](const std::shared_ptr<Endpoint>& endpoint) {
    Mesh mesh(endpoint, layout);
    const int r = mesh.rank(), e = r % 2;
    EXPECT_EQ(mesh.expert_replicas()->ranks(), (std::vector<int>{e, e + 2, e + 4, e + 6}));
    EXPECT_EQ(mesh.expert_shard()->size(), 2);
    EXPECT_EQ(mesh.expert_data()->size(), 2);
    EXPECT_EQ(mesh.expert_shard()->ranks(), (std::vector<int>{r / 4 * 4 + e, r / 4 * 4 + e + 2}));
    EXPECT_EQ(mesh.expert_data()->ranks(), (std::vector<int>{r % 4, r % 4 + 4}));
  });
}

}  // namespace
}  // namespace sinew
