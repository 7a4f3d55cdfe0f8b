#include "storage/boxes.hpp"
#include "support/property.hpp"

#include <gtest/gtest.h>

#include <numeric>

namespace sinew {
namespace {

// Positions, in the whole tensor's row order, of a box's elements in its own row order.
std::vector<std::int64_t> positions(const Box& box, const std::vector<std::int64_t>& shape) {
  std::vector<std::int64_t> out, at(box.extent.size(), 0);
  for (std::int64_t i = 0; i < box.elements(); ++i) {
    std::int64_t rest = i, flat = 0;
    for (std::size_t d = box.extent.size(); d-- > 0;) {
      at[d] = rest % box.extent[d];
      rest /= box.extent[d];
    }
    for (std::size_t d = 0; d < shape.size(); ++d) flat = flat * shape[d] + box.offset[d] + at[d];
    out.push_back(flat);
  }
  return out;
}

PROPERTY(Boxes, OfARunAreItsElementsInOrder) {
  const auto dimensions = test::draw<std::size_t>(1, 4);
  Box part;
  std::vector<std::int64_t> shape;
  for (std::size_t d = 0; d < dimensions; ++d) {
    part.offset.push_back(test::draw<std::int64_t>(0, 4));
    part.extent.push_back(test::draw<std::int64_t>(1, 6));
    shape.push_back(part.offset.back() + part.extent.back() + test::draw<std::int64_t>(0, 3));
  }
  const auto begin = test::draw<std::int64_t>(0, part.elements() + 1);
  const auto end = test::draw<std::int64_t>(begin, part.elements() + 1);
  const auto all = positions(part, shape);
  std::vector<std::int64_t> got;
  const auto boxes = boxes_of_run(part, begin, end);
  for (const auto& box : boxes) {
    HOLDS(box.elements() > 0);
    const auto some = positions(box, shape);
    got.insert(got.end(), some.begin(), some.end());
  }
  HOLDS(got == std::vector<std::int64_t>(all.begin() + begin, all.begin() + end));
  HOLDS(boxes.size() <= 2 * dimensions - 1);
}

TEST(Boxes, AGapAndAnOverlapAreSeenThoughTheCountIsRight) {
  const std::vector<std::int64_t> shape{4, 6};
  const Box top{.offset = {0, 0}, .extent = {2, 6}}, left{.offset = {2, 0}, .extent = {2, 3}},
      right{.offset = {2, 3}, .extent = {2, 3}}, over{.offset = {1, 3}, .extent = {2, 3}};
  EXPECT_EQ(tiling_problem(shape, {top, left, right}), "");
  EXPECT_EQ(tiling_problem(shape, {right, top, left}), "");
  EXPECT_EQ(tiling_problem(shape, {top, left}), "hold 18 of its 24 elements");
  EXPECT_EQ(tiling_problem(shape, {top, left, right, right}), "overlap");
  EXPECT_EQ(tiling_problem(shape, {top, left, over}), "overlap");  // 24 elements, some twice, some never
  EXPECT_EQ(tiling_problem(shape, {top, right, right}), "overlap");
}

// Any way of cutting a tensor and then its pieces in runs tiles it, and does not after any one is moved.
PROPERTY(Boxes, RunsOfPartsTileTheWhole) {
  const auto rows = test::draw<std::int64_t>(2, 9), columns = test::draw<std::int64_t>(2, 9);
  const auto cut = test::draw<std::int64_t>(1, columns), parts = test::draw<std::int64_t>(1, 5);
  std::vector<Box> boxes;
  for (const auto& part : {Box{.offset = {0, 0}, .extent = {rows, cut}},
                           Box{.offset = {0, cut}, .extent = {rows, columns - cut}}})
    for (std::int64_t i = 0; i < parts; ++i)
      for (const auto& box :
           boxes_of_run(part, part.elements() * i / parts, part.elements() * (i + 1) / parts))
        boxes.push_back(box);
  HOLDS(tiling_problem({rows, columns}, boxes).empty());
  auto moved = boxes;
  auto& one = moved[test::draw<std::size_t>(0, boxes.size())];
  one.offset[0] += one.offset[0] > 0 ? -1 : 1;
  if (one.offset[0] + one.extent[0] <= rows) HOLDS(!tiling_problem({rows, columns}, moved).empty());
}

}  // namespace
}  // namespace sinew
