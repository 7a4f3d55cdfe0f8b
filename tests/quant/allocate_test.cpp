#include "quant/allocate.hpp"
#include "support/property.hpp"

#include <gtest/gtest.h>

#include <limits>

namespace sinew {
namespace {

using Items = std::vector<std::vector<FormatChoice>>;

double brute_force(const Items& items, std::uint64_t budget, std::size_t at = 0) {
  if (at == items.size()) return 0;
  double best = std::numeric_limits<double>::infinity();
  for (const FormatChoice& choice : items[at]) {
    if (choice.bytes <= budget)
      best = std::min(best, choice.cost + brute_force(items, budget - choice.bytes, at + 1));
  }
  return best;
}

}  // namespace

// Budgets here are under the grid's resolution, so the result must be the optimum.
PROPERTY(Allocate, FindsTheOptimumOfSmallProblems) {
  Items items(test::draw<std::size_t>(0, 7));
  for (auto& item : items)
    for (std::size_t k = test::draw<std::size_t>(1, 6); k > 0; --k)
      item.push_back({test::draw<std::uint64_t>(1, 200), static_cast<double>(test::draw(0, 1000))});
  const std::uint64_t budget = test::draw<std::uint64_t>(1, 900);
  const auto picks = allocate(items, budget);
  const double best = brute_force(items, budget);
  if (best == std::numeric_limits<double>::infinity()) {
    HOLDS(picks.empty());
    return;
  }
  HOLDS(picks.size() == items.size());
  std::uint64_t bytes = 0;
  double cost = 0;
  for (std::size_t i = 0; i < items.size(); ++i) {
    bytes += items[i][picks[i]].bytes;
    cost += items[i][picks[i]].cost;
  }
  HOLDS(bytes <= budget);
  HOLDS(cost == best);
}

// Large problems: within a hair of the bound that any budget's Lagrangian gives.
TEST(Allocate, LargeProblemsComeCloseToTheLagrangianBound) {
  Items items;
  std::uint64_t least = 0, most = 0;
  for (std::uint64_t i = 0; i < 300; ++i) {
    const std::uint64_t size = 1'000'000 + (i * 7919 % 97) * 100'000;
    const double sensitivity = 1 + static_cast<double>(i * 104729 % 1000);
    items.emplace_back();
    for (std::uint64_t bits = 2; bits <= 8; ++bits)
      items.back().push_back({size * bits / 8, sensitivity / static_cast<double>(1 << (2 * bits))});
    least += items.back().front().bytes;
    most += items.back().back().bytes;
  }
  for (const double share : {0.1, 0.4, 0.8}) {
    const std::uint64_t budget =
        least + static_cast<std::uint64_t>(share * static_cast<double>(most - least));
    const auto picks = allocate(items, budget);
    ASSERT_EQ(picks.size(), items.size());
    double cost = 0, bound = 0;
    std::uint64_t bytes = 0;
    for (std::size_t i = 0; i < items.size(); ++i) {
      cost += items[i][picks[i]].cost;
      bytes += items[i][picks[i]].bytes;
    }
    EXPECT_LE(bytes, budget);
    for (double lambda = 1e-12; lambda < 1; lambda *= 1.02) {
      double value = -lambda * static_cast<double>(budget);
      for (const auto& row : items) {
        double best = std::numeric_limits<double>::infinity();
        for (const FormatChoice& choice : row)
          best = std::min(best, choice.cost + lambda * static_cast<double>(choice.bytes));
        value += best;
      }
      bound = std::max(bound, value);
    }
    EXPECT_LT(cost, 1.005 * bound) << share;
  }
}

}  // namespace sinew
