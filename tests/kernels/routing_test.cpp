#include "kernels/routing.hpp"

#include <gtest/gtest.h>

#include "base/error.hpp"
#include "support/property.hpp"

namespace sinew {

PROPERTY(Routing, SortsSlotsByExpertAndKeepsTheirOrder) {
  const auto experts = test::draw<index_t>(1, 9), top_k = test::draw<index_t>(1, 4);
  const auto tokens = test::draw<index_t>(0, 50);
  const auto choice = test::draw_list(static_cast<std::size_t>(tokens * top_k),
                                      [&] { return test::draw<std::int64_t>(-1, experts); });
  ExpertRows rows;
  sort_by_expert(choice.data(), tokens, top_k, experts, rows);
  HOLDS(rows.experts() == experts);
  HOLDS(rows.offsets.front() == 0);
  index_t row = 0;
  for (index_t e = 0; e < experts; ++e) {
    HOLDS(rows.offsets[e] == row);
    for (index_t s = 0; s < tokens * top_k; ++s) {
      if (choice[s] != e) continue;
      HOLDS(rows.slots[row] == s);
      HOLDS(rows.token_of[row] == s / top_k);
      ++row;
    }
  }
  HOLDS(rows.rows() == row);
  HOLDS(rows.offsets.back() == row);
}

TEST(Routing, RefusesAnExpertThatIsNotThere) {
  const std::int64_t choice = 3;
  ExpertRows rows;
  EXPECT_THROW(sort_by_expert(&choice, 1, 1, 3, rows), Error);
}

}  // namespace sinew
