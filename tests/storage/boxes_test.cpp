#include "storage/boxes.hpp"

#include <gtest/gtest.h>
#include <rapidcheck.h>

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

TEST(Boxes, OfARunAreItsElementsInOrder) {
  const bool ok = rc::check([] {
    const auto dimensions = *rc::gen::inRange<std::size_t>(1, 4);
    Box part;
    std::vector<std::int64_t> shape;
    for (std::size_t d = 0; d < dimensions; ++d) {
      part.offset.push_back(*rc::gen::inRange<std::int64_t>(0, 4));
      part.extent.push_back(*rc::gen::inRange<std::int64_t>(1, 6));
      shape.push_back(part.offset.back() + part.extent.back() + *rc::gen::inRange<std::int64_t>(0, 3));
    }
    const auto begin = *rc::gen::inRange<std::int64_t>(0, part.elements() + 1);
    const auto end = *rc::gen::inRange<std::int64_t>(begin, part.elements() + 1);
    const auto all = positions(part, shape);
    std::vector<std::int64_t> got;
    const auto boxes = boxes_of_run(part, begin, end);
    for (const auto& box : boxes) {
      RC_ASSERT(box.elements() > 0);
      const auto some = positions(box, shape);
      got.insert(got.end(), some.begin(), some.end());
    }
    RC_ASSERT(got == std::vector<std::int64_t>(all.begin() + begin, all.begin() + end));
    RC_ASSERT(boxes.size() <= 2 * dimensions - 1);
  });
  EXPECT_TRUE(ok);
}

}  // namespace
}  // namespace sinew
