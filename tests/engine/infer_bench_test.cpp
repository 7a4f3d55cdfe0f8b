#include "engine/infer_bench.hpp"

#include <gtest/gtest.h>

#include "engine/packing.hpp"
#include "engine/random_model.hpp"
#include "engine/random_models.hpp"
#include "kernels/read_bandwidth.hpp"

namespace sinew::engine {
namespace {

MemoryRange place_of(const WeightMatrix& w) {
  if (const PackedMatrix* p = packed(w)) return {p->data, w.packed->bytes()};
  return {w.data, w.bytes()};
}

bool within(const MemoryRange& part, const MemoryRange& whole) {
  return part.data() >= whole.data() && part.data() + part.size() <= whole.data() + whole.size();
}

bool overlap(const MemoryRange& a, const MemoryRange& b) {
  return a.data() < b.data() + b.size() && b.data() < a.data() + a.size();
}

}  // namespace

TEST(InferBench, BandwidthIsMeasuredOverWhatDecodingReads) {
  const auto model = random_model(parse_model_config(test::random_config("deepseek_v2").dump()), "Q4_K_M", 1);
  const std::vector<MemoryRange> ranges = decoding_memory(*model);
  std::size_t bytes = 0, padded = 0;
  for (std::size_t i = 0; i < ranges.size(); ++i) {
    bytes += ranges[i].size();
    if (i == 0) continue;
    EXPECT_GE(ranges[i].data(), ranges[i - 1].data() + ranges[i - 1].size());
  }
  const auto inside = [&](const WeightMatrix& w) {
    padded += (place_of(w).size() + 63) / 64 * 64;
    return std::ranges::any_of(ranges, [&](const MemoryRange& range) { return within(place_of(w), range); });
  };
  EXPECT_TRUE(inside(model->head));
  for (const Layer& layer : model->layers) {
    for (const auto* w : {&layer.latent->q_a, &layer.latent->q, &layer.latent->kv_a, &layer.o})
      EXPECT_TRUE(inside(*w)) << w->name;
    for (const auto* list : {&layer.latent->key_absorb, &layer.latent->value_up})
      for (const WeightMatrix& w : *list) EXPECT_TRUE(inside(w)) << w.name;
    std::vector<const SwigluWeights*> networks;
    if (layer.dense) networks.push_back(&*layer.dense);
    if (layer.moe) {
      EXPECT_TRUE(inside(layer.moe->router));
      networks.push_back(&*layer.moe->shared);
      for (const SwigluWeights& expert : layer.moe->experts) networks.push_back(&expert);
    }
    for (const SwigluWeights* network : networks)
      for (const auto* w : {&network->gate, &network->up, &network->down}) EXPECT_TRUE(inside(*w)) << w->name;
    for (const WeightMatrix& w : layer.latent->key_up)  // of prefill
      for (const MemoryRange& range : ranges) EXPECT_FALSE(overlap(place_of(w), range)) << w.name;
  }
  EXPECT_LE(bytes, padded);
  EXPECT_GT(bytes, model->bytes_per_token());
}

TEST(InferBench, WindowsOfMemoryFollowEachOtherAndBeginAgain) {
  const std::vector<std::byte> bytes(100);
  const MemoryRange all(bytes);
  const std::vector<MemoryRange> ranges = {all.subspan(0, 10), all.subspan(20, 30), all.subspan(60, 5)};
  std::vector<const std::byte*> order;
  for (const MemoryRange& range : ranges)
    for (const std::byte& b : range) order.push_back(&b);
  for (const std::size_t first : {0, 9, 10, 39, 44, 45, 200})
    for (const std::size_t count : {0, 1, 11, 45, 100}) {
      std::vector<const std::byte*> read;
      for (const MemoryRange& range : memory_window(ranges, first, count))
        for (const std::byte& b : range) read.push_back(&b);
      ASSERT_EQ(read.size(), count);
      for (std::size_t i = 0; i < count; ++i) EXPECT_EQ(read[i], order[(first + i) % order.size()]);
    }
  EXPECT_TRUE(memory_window({}, 3, 5).empty());
}

TEST(InferBench, SharesAreOfWhatTheMachineGaveBeside) {
  const auto model = random_model(parse_model_config(test::random_config("deepseek_v2").dump()), "Q4_K_M", 1);
  Session session(model, {.cache_tokens = 1024});
  const auto ordered = [](const Share& s) {
    EXPECT_LE(s.range.least, s.range.median);
    EXPECT_LE(s.range.median, s.range.greatest);
    EXPECT_EQ(s.limit > 0, s.range.least > 0);
  };
  const PrefillFigure prefill = bench_prefill(session, 40, 2);
  ordered(prefill.of_peak);
  EXPECT_EQ(prefill.of_peak.limit > 0, int8_peak() > 0);
  const index_t depths[] = {0, 33};
  const auto one = bench_decode(session, depths, 1, 3, {});
  ASSERT_EQ(one.size(), 2U);
  for (const DecodeFigure& figure : one) {
    ordered(figure.of_reading);
    EXPECT_GT(figure.of_reading.limit, 0);
  }
  EXPECT_EQ(one[0].of_reading.limit, one[1].of_reading.limit);
  EXPECT_EQ(bench_decode(session, depths, 2, 2, {})[0].of_reading.limit, 0);  // experts are not known
}

}  // namespace sinew::engine
