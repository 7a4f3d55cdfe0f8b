#include "schedule/expert_placement.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "base/error.hpp"
#include "support/property.hpp"

namespace sinew {
namespace {

// The example that DeepSeek's published balancer shows: 12 experts, 16 slots, 4 groups, 2 nodes, 8 devices.
TEST(ExpertPlacement, KeepsGroupsOnNodesAndCopiesTheHot) {
  const std::vector<double> loads{90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86};
  const auto p = place_experts(loads, {.devices = 8, .nodes = 2, .slots = 2, .groups = 4});
  // Its answer has copies of experts 1, 4, 5 and 10.
  EXPECT_EQ(p.copies, (std::vector<int>{1, 2, 1, 1, 2, 2, 1, 1, 1, 1, 2, 1}));
  for (int e = 0; e < 12; ++e) {
    std::vector<int> nodes;
    for (std::size_t d = 0; d < 8; ++d)
      if (std::count(p.experts[d].begin(), p.experts[d].end(), e) > 0)
        nodes.push_back(static_cast<int>(d / 4));
    EXPECT_EQ(*std::min_element(nodes.begin(), nodes.end()), *std::max_element(nodes.begin(), nodes.end()))
        << e;
  }
}

TEST(ExpertPlacement, EvenLoadsAreEven) {
  const std::vector<double> loads(64, 1.0);
  const auto p = place_experts(loads, {.devices = 8, .slots = 8});
  EXPECT_DOUBLE_EQ(p.imbalance(), 1);
}

TEST(ExpertPlacement, RefusesWhatDoesNotFit) {
  const std::vector<double> loads(8, 1.0);
  EXPECT_THROW(place_experts(loads, {.devices = 2, .slots = 3}), UserError);
  EXPECT_THROW(place_experts(loads, {.devices = 3, .nodes = 2, .slots = 8}), UserError);
  EXPECT_THROW(place_experts(loads, {.devices = 2, .slots = 4, .groups = 3}), UserError);
}

PROPERTY(ExpertPlacement, UsesEverySlotAndIsNoWorseThanOneCopyEach) {
  const int nodes = test::draw_of({1, 2, 4}), per_node = test::draw(1, 4);
  const int groups = nodes * test::draw(1, 3), in_group = test::draw(1, 5);
  const int experts = groups * in_group, devices = nodes * per_node;
  const int least = (groups / nodes * in_group + per_node - 1) / per_node;
  const int slots = least + test::draw(0, 3);
  std::vector<double> loads;
  for (int e = 0; e < experts; ++e) loads.push_back(test::draw(0, 1000));
  const PlacementOptions options{.devices = devices, .nodes = nodes, .slots = slots, .groups = groups};
  const auto p = place_experts(loads, options);
  HOLDS(static_cast<int>(p.experts.size()) == devices);
  std::vector<int> seen(loads.size(), 0);
  for (const auto& held : p.experts) {
    HOLDS(static_cast<int>(held.size()) == slots);
    for (const int e : held) ++seen[static_cast<std::size_t>(e)];
  }
  HOLDS(seen == p.copies);
  HOLDS(*std::min_element(seen.begin(), seen.end()) >= 1);
  const double sum = std::accumulate(loads.begin(), loads.end(), 0.0);
  const double placed = std::accumulate(p.load.begin(), p.load.end(), 0.0);
  HOLDS(std::abs(sum - placed) <= 1e-9 * (sum + 1));
  // The busiest copy is at most what the largest load is.
  const auto again = place_experts(loads, options);
  HOLDS(again.experts == p.experts);
}

}  // namespace
}  // namespace sinew
