#include "base/text.hpp"

#include <gtest/gtest.h>

namespace sinew {

TEST(Text, NearestName) {
  const std::vector<std::string> names{"learning_rate", "warmup_steps", "seed"};
  EXPECT_EQ(nearest_name("learnig_rate", names), "learning_rate");
  EXPECT_EQ(nearest_name("zzzzzzzzzz", names), "");
  EXPECT_EQ(did_you_mean("sede", names), "; did you mean \"seed\"?");
}

TEST(Text, HumanNumbers) {
  EXPECT_EQ(human_bytes(1536), "1.50 KiB");
  EXPECT_EQ(human_count(15706484224.0), "15.7B");
  EXPECT_EQ(human_seconds(7384), "2h03m");
  EXPECT_EQ(with_commas(15706484224), "15,706,484,224");
  EXPECT_EQ(with_commas(999), "999");
}

TEST(Text, Utf8) {
  EXPECT_TRUE(valid_utf8("a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80"));
  EXPECT_FALSE(valid_utf8("\xC0\xAF"));          // overlong
  EXPECT_FALSE(valid_utf8("\xED\xA0\x80"));      // surrogate
  EXPECT_FALSE(valid_utf8("\xE2\x82"));          // cut
  EXPECT_FALSE(valid_utf8("\xF4\x90\x80\x80"));  // above U+10FFFF
}

}  // namespace sinew
