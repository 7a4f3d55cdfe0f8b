#include "text/split_plan.hpp"
#include "support/property.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <string>

namespace sinew {
namespace {

SplitPlan::Seen seen(const std::string& text) { return {xxh3_128(text.data(), text.size()), text.size()}; }

double held_out(const SplitPlan& plan, const std::vector<std::string>& texts) {
  double bytes = 0;
  for (const auto& text : texts) {
    const auto document = seen(text);
    if (plan.holds_out(document.hash))
      bytes += static_cast<double>(text.size());
    else if (const auto cut = plan.cut(document.hash, text))
      bytes += static_cast<double>(text.size() - *cut);
  }
  return bytes;
}

PROPERTY(SplitPlan, HoldsOutWhatWasAskedFor) {
  const auto sizes = test::draw_list(1 + test::draw_length(), [] { return test::draw(40, 60000); });
  const double fraction = test::draw(1, 51) / 100.0;
  std::vector<std::string> texts;
  std::vector<SplitPlan::Seen> documents;
  double total = 0;
  for (const int size : sizes) {
    std::string text;
    while (text.size() < static_cast<std::size_t>(size))
      text += std::to_string(texts.size() * 7919 + text.size()) + "\n";
    total += static_cast<double>(text.size());
    documents.push_back(seen(text));
    texts.push_back(std::move(text));
  }
  const double target = std::max(fraction * total, std::min(total / 10, 16384.0));
  const double held = held_out(SplitPlan::of_all(documents, fraction), texts);
  HOLDS(held >= 0.3 * target);
  HOLDS(held <= 1.25 * target + 1);
  HOLDS(held < total);
}

TEST(SplitPlan, OneLineCorpusIsCutBetweenCharacters) {
  std::string text;
  for (int i = 0; i < 100; ++i) text += "\xE2\x82\xAC";
  const auto plan = SplitPlan::of_all({seen(text)}, 0.02);
  const auto cut = plan.cut(seen(text).hash, text);
  ASSERT_TRUE(cut.has_value());
  EXPECT_EQ(*cut % 3, 0u);
  EXPECT_NEAR(static_cast<double>(*cut), 270, 3);
}

TEST(SplitPlan, NothingIsHeldOutWhenNothingIsAskedFor) {
  const auto plan = SplitPlan::of_all({seen("a text"), seen("another")}, 0);
  EXPECT_EQ(held_out(plan, {"a text", "another"}), 0);
  EXPECT_FALSE(SplitPlan::by_hash(0).holds_out({0, 0}));
}

TEST(SplitPlan, ByHashIsTheShareOfDocuments) {
  const auto plan = SplitPlan::by_hash(0.05);
  int held = 0;
  for (int i = 0; i < 20000; ++i) held += plan.holds_out(seen("document " + std::to_string(i)).hash);
  EXPECT_NEAR(held, 1000, 5 * std::sqrt(950.0));
}

}  // namespace
}  // namespace sinew
