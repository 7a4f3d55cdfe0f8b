#include "kernels/routing.hpp"

#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>

#include "base/error.hpp"

namespace sinew {

RC_GTEST_PROP(Routing, SortsSlotsByExpertAndKeepsTheirOrder, ()) {
  const auto experts = *rc::gen::inRange<index_t>(1, 9), top_k = *rc::gen::inRange<index_t>(1, 4);
  const auto tokens = *rc::gen::inRange<index_t>(0, 50);
  const auto choice = *rc::gen::container<std::vector<std::int64_t>>(
      tokens * top_k, rc::gen::inRange<std::int64_t>(-1, experts));
  ExpertRows rows;
  sort_by_expert(choice.data(), tokens, top_k, experts, rows);
  RC_ASSERT(rows.experts() == experts);
  RC_ASSERT(rows.offsets.front() == 0);
  index_t row = 0;
  for (index_t e = 0; e < experts; ++e) {
    RC_ASSERT(rows.offsets[e] == row);
    for (index_t s = 0; s < tokens * top_k; ++s) {
      if (choice[s] != e) continue;
      RC_ASSERT(rows.slots[row] == s);
      RC_ASSERT(rows.token_of[row] == s / top_k);
      ++row;
    }
  }
  RC_ASSERT(rows.rows() == row);
  RC_ASSERT(rows.offsets.back() == row);
}

TEST(Routing, RefusesAnExpertThatIsNotThere) {
  const std::int64_t choice = 3;
  ExpertRows rows;
  EXPECT_THROW(sort_by_expert(&choice, 1, 1, 3, rows), Error);
}

}  // namespace sinew
