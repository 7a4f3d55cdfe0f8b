#include "plan/search.hpp"

#include <gtest/gtest.h>

#include "base/error.hpp"
#include "support/property.hpp"

namespace sinew::plan {
namespace {

plan::Setup small_moe() {
  plan::Setup s;
  s.network = network_from(load_model_config("deepseek-v2-lite"), "deepseek-v2-lite");
  s.chip = find_accelerator("A100");
  s.count = 16;
  s.job.sequence = 4096;
  s.job.global_batch = 64;
  return s;
}

SearchSpace small_space() {
  SearchSpace space;
  space.tensor = {1, 2};
  space.expert = {1, 8, 16};
  space.expert_tensor = {1};
  space.pipeline = {1, 2, 4};
  space.chunks = {2, 3};
  space.micro_batch = {1, 2};
  space.zero = {1, 3};
  space.recompute = {Recompute{}, Recompute{.full = true}};
  return space;
}

void expect_same(const SearchResult& a, const SearchResult& b) {
  EXPECT_EQ(a.considered, b.considered);
  ASSERT_EQ(a.best.size(), b.best.size());
  for (std::size_t i = 0; i < a.best.size(); ++i) {
    EXPECT_EQ(layout_text(a.best[i].setup.layout), layout_text(b.best[i].setup.layout));
    EXPECT_DOUBLE_EQ(a.best[i].step.seconds, b.best[i].step.seconds);
    EXPECT_DOUBLE_EQ(a.best[i].step.memory.total(), b.best[i].step.memory.total());
  }
}

// Pruning cuts nothing that belongs in the answer.
TEST(Search, EqualsBruteForceOnSmallSpaces) {
  const Constants& k = fitted_constants();
  plan::Setup s = small_moe();
  for (const double memory : {80e9, 24e9}) {
    s.chip.memory_bytes = memory;
    for (const Objective objective : {Objective::time, Objective::memory}) {
      const SearchResult fast = search_layouts(s, small_space(), k, 7, objective);
      expect_same(fast, search_by_brute_force(s, small_space(), k, 7, objective));
      EXPECT_LT(fast.simulated, fast.considered);
    }
  }
}

PROPERTY(Search, EqualsBruteForceOnRandomMachines) {
  plan::Setup s = small_moe();
  s.chip.scaleup *= test::draw(1, 9) / 4.0;
  s.chip.network *= test::draw(1, 9) / 4.0;
  s.chip.bf16_achievable *= test::draw(1, 9) / 4.0;
  s.job.global_batch = 16 * test::draw(1, 9);
  s.software.overlap_data = test::draw_bool();
  SearchSpace space = small_space();
  space.recompute = {Recompute{}};
  space.expert = {8};
  const SearchResult fast = search_layouts(s, space, fitted_constants(), 3);
  const SearchResult slow = search_by_brute_force(s, space, fitted_constants(), 3);
  HOLDS(fast.best.size() == slow.best.size());
  for (std::size_t i = 0; i < fast.best.size(); ++i)
    HOLDS(layout_text(fast.best[i].setup.layout) == layout_text(slow.best[i].setup.layout));
}

// The bounds that prune: never above what they bound, schedule by schedule.
TEST(Search, BoundsAreBelow) {
  const Constants& k = fitted_constants();
  plan::Setup s = small_moe();
  s.layout.data = 4;
  s.layout.pipeline = 4;
  s.layout.expert = 4;
  for (const ScheduleKind schedule : schedule_kinds())
    for (const int chunks : {2, 3})
      for (const std::int64_t batch : {8, 64, 512}) {
        s.layout.schedule = schedule;
        s.layout.chunks = schedule == ScheduleKind::interleaved ? chunks : 1;
        s.job.global_batch = batch;
        const Kit kit = make_kit(s, k);
        EXPECT_LE(step_floor(kit, s, k), predict_step(kit, s, k).seconds) << schedule_name(schedule) << batch;
        EXPECT_LE(memory_floor(kit, s).total(), predict_memory(kit, s, k).total() * (1 + 1e-12));
      }
}

TEST(Search, WhyNot) {
  const Constants& k = fitted_constants();
  plan::Setup s = small_moe();
  const SearchResult found = search_layouts(s, small_space(), k, 1);
  ASSERT_FALSE(found.best.empty());
  s.layout = parse_layout("tp=3 pp=2", s);
  EXPECT_NE(why_not(s, found.best[0], k).find("not possible"), std::string::npos);
  s.layout = Layout{};
  s.layout = parse_layout("tp=2,pp=2,ep=4,recompute=full", s);
  EXPECT_EQ(s.layout.data, 4);
  EXPECT_TRUE(s.layout.recompute.full);
  EXPECT_NE(why_not(s, found.best[0], k).find("times the best"), std::string::npos);
  EXPECT_THROW(parse_layout("tq=2", s), UserError);
  EXPECT_THROW(parse_layout("tp=two", s), UserError);
}

TEST(Search, SpacesAreReadFromText) {
  const SearchSpace s =
      parse_space("tp=1,2 zero=1 recompute=none,full,norm+act schedule=1f1b,zero-bubble offload=0");
  EXPECT_EQ(s.tensor, (std::vector<int>{1, 2}));
  EXPECT_EQ(s.zero, std::vector<int>{1});
  EXPECT_TRUE(s.pipeline.empty());
  ASSERT_EQ(s.recompute.size(), 3u);
  EXPECT_TRUE(s.recompute[2].norm && s.recompute[2].activation && !s.recompute[2].full);
  EXPECT_EQ(s.schedules.size(), 2u);
  EXPECT_FALSE(s.offload);
  EXPECT_TRUE(parse_space("").tensor.empty());
  for (const char* bad : {"tq=1", "tp", "tp=0", "tp=x", "zero=-1", "schedule=1f1c"})
    EXPECT_THROW(parse_space(bad), UserError) << bad;
  for (const Candidate& c : search_layouts(small_moe(), s, fitted_constants(), 5).best)
    EXPECT_LE(c.setup.layout.tensor, 2);
}

TEST(Search, FrontTradesTimeForMemory) {
  const std::vector<Candidate> front = memory_front(small_moe(), small_space(), fitted_constants());
  ASSERT_GE(front.size(), 2u);
  for (std::size_t i = 1; i < front.size(); ++i) {
    EXPECT_GE(front[i].step.seconds, front[i - 1].step.seconds);
    EXPECT_LT(front[i].step.memory.total(), front[i - 1].step.memory.total());
  }
}

}  // namespace
}  // namespace sinew::plan
