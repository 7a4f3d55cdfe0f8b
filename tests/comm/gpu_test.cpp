// Collectives between all GPUs of the machine, each a rank; one GPU is a world of one.
#include <ATen/ATen.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "comm/communicator.hpp"
#include "comm/ranks.hpp"

namespace sinew {
namespace {

int gpus() { return at::hasCUDA() ? at::detail::getCUDAHooks().getNumGPUs() : 0; }

class Gpu : public testing::Test {
 protected:
  void SetUp() override {
    if (gpus() == 0) GTEST_SKIP() << "no GPU here";
  }
  static void on_gpus(const std::function<void(Communicator&, at::Device)>& body) {
    const int size = std::min(gpus(), 8);
    std::vector<int> everyone(static_cast<std::size_t>(size));
    std::iota(everyone.begin(), everyone.end(), 0);
    test::run_ranks(
        size,
        [&](const std::shared_ptr<Endpoint>& endpoint) {
          Communicator c(endpoint, everyone, "world", 31);
          body(c, endpoint->options().device);
        },
        0, 60, true);
  }
};

TEST_F(Gpu, CollectivesGiveWhatTheirNamesSay) {
  on_gpus([](Communicator& c, at::Device device) {
    const std::int64_t size = c.size(), rank = c.rank();
    for (const auto type : {at::kFloat, at::kBFloat16, at::kLong, at::kDouble}) {
      const auto options = at::TensorOptions(type).device(device);
      const auto own = [&](std::int64_t n, std::int64_t r) {
        return at::arange(n, options).remainder(7) + r;
      };
      for (const std::int64_t n : {std::int64_t{3}, 1024 * size + size}) {
        auto sum = own(n, 0);
        for (std::int64_t r = 1; r < size; ++r) sum = sum + own(n, r);
        auto x = own(n, rank);
        c.all_reduce(x);
        EXPECT_TRUE(x.equal(sum)) << x.dtype() << " " << n;
        x = own(n, rank);
        c.all_reduce(x, Reduction::max);
        EXPECT_TRUE(x.equal(own(n, size - 1)));
        const auto all = at::empty({n * size}, options);
        c.all_gather(all, own(n, rank));
        for (std::int64_t r = 0; r < size; ++r) EXPECT_TRUE(all.narrow(0, r * n, n).equal(own(n, r)));
        const auto piece = at::empty({n}, options);
        c.reduce_scatter(piece, all);
        EXPECT_TRUE(piece.equal(own(n, rank) * size));
        auto told = own(n, rank);
        c.broadcast(told, static_cast<int>(size - 1));
        EXPECT_TRUE(told.equal(own(n, size - 1)));
      }
    }
    c.barrier();
  });
}

// Rank a sends rank b a row for each of a, and none to itself where it is the last.
TEST_F(Gpu, UnevenRowsArrive) {
  on_gpus([](Communicator& c, at::Device device) {
    const std::int64_t size = c.size(), rank = c.rank();
    const auto options = at::TensorOptions(at::kFloat).device(device);
    std::vector<std::int64_t> in_rows(static_cast<std::size_t>(size), rank), out_rows;
    for (std::int64_t r = 0; r < size; ++r) out_rows.push_back(r);
    const auto in = at::full({rank * size, 4}, static_cast<double>(rank), options);
    const auto out = at::empty({size * (size - 1) / 2, 4}, options);
    c.all_to_all(out, in, out_rows, in_rows);
    std::int64_t begin = 0;
    for (std::int64_t r = 0; r < size; begin += r++)
      EXPECT_TRUE(out.narrow(0, begin, r).eq(static_cast<double>(r)).all().item<bool>());
  });
}

// Both ways at once and on several channels, large enough that nothing is sent before the other side takes
// it.
TEST_F(Gpu, MessagesBothWaysDoNotWaitForEachOther) {
  if (gpus() < 2) GTEST_SKIP() << "one GPU has nobody to speak to";
  on_gpus([](Communicator& c, at::Device device) {
    const int size = c.size(), next = (c.rank() + 1) % size, last = (c.rank() + size - 1) % size;
    constexpr std::int64_t kElements = 1 << 22;
    const auto options = at::TensorOptions(at::kFloat).device(device);
    for (int round = 0; round < 3; ++round) {
      std::vector<WorkPtr> works;
      std::vector<at::Tensor> came;
      for (int channel = 0; channel < 2; ++channel) {
        const int to = channel == 0 ? next : last, from = channel == 0 ? last : next;
        const int tag = channel * kTagsOfAChannel + round;
        came.push_back(at::empty({kElements}, options));
        works.push_back(c.send_async(at::full({kElements}, c.rank() + 0.5, options), to, tag));
        works.push_back(c.receive_async(came.back(), from, tag));
      }
      for (const auto& work : works) work->wait();
      EXPECT_TRUE(came[0].eq(last + 0.5).all().item<bool>());
      EXPECT_TRUE(came[1].eq(next + 0.5).all().item<bool>());
    }
  });
}

}  // namespace
}  // namespace sinew
