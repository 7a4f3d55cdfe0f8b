#include "engine/infer_bench.hpp"

#include <gtest/gtest.h>

#include "engine/packing.hpp"
#include "engine/random_model.hpp"
#include "engine/random_models.hpp"

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

}  // namespace sinew::engine
