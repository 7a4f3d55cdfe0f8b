#include "base/spans.hpp"

#include <gtest/gtest.h>

#include <numeric>
#include <thread>

namespace sinew {
namespace {

double sum(const SpanTotals& totals) {
  return std::accumulate(totals.seconds.begin(), totals.seconds.end(), 0.0);
}

TEST(Spans, EverySecondIsCountedOnceInTheInnermostSpan) {
  SpanLog log;
  log.keep_events(true);
  {
    const Span step(SpanKind::compute, "step");
    {
      const Span wait(SpanKind::communication, "gather", 3);
      const Span inner(SpanKind::data, "inner");
    }
    const Span later(SpanKind::optimizer, "update");
  }
  const auto& events = log.events();
  ASSERT_EQ(events.size(), 4U);
  EXPECT_EQ(events[0].name, "inner");
  EXPECT_EQ(events[1].name, "gather 3");
  EXPECT_EQ(events[3].name, "step");
  const auto length = [&](std::size_t i) {
    return static_cast<double>(events[i].end - events[i].begin) * 1e-9;
  };
  const auto totals = log.take_totals();
  EXPECT_NEAR(totals.of(SpanKind::communication), length(1) - length(0), 1e-12);
  EXPECT_NEAR(totals.of(SpanKind::data), length(0), 1e-12);
  EXPECT_NEAR(totals.of(SpanKind::compute), length(3) - length(1) - length(2), 1e-12);
  EXPECT_NEAR(sum(totals), length(3), 1e-12);
  EXPECT_EQ(sum(log.take_totals()), 0);
}

TEST(Spans, WaitingForANeighbourIsBubbleWhateverItWaitsIn) {
  SpanLog log;
  {
    const Span bubble(SpanKind::bubble, "wait");
    const Span message(SpanKind::communication, "receive");
  }
  const auto totals = log.take_totals();
  EXPECT_EQ(totals.of(SpanKind::communication), 0);
  EXPECT_GT(totals.of(SpanKind::bubble), 0);
}

TEST(Spans, BelongToTheThreadThatOpensThem) {
  SpanLog log;
  log.keep_events(true);
  std::thread([] {
    EXPECT_EQ(SpanLog::current(), nullptr);
    const Span nobody(SpanKind::compute, "elsewhere");
  }).join();
  EXPECT_TRUE(log.events().empty());
  {
    SpanLog inner;
    EXPECT_EQ(SpanLog::current(), &inner);
  }
  EXPECT_EQ(SpanLog::current(), &log);
}

}  // namespace
}  // namespace sinew
