#include "config/model_config.hpp"

#include <gtest/gtest.h>

#include <cctype>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "config/presets.hpp"
#include "support/support.hpp"

namespace sinew {
namespace {

using test::data_dir;

struct Published {
  const char* preset;
  std::int64_t total, active, mtp, kv;
};

// Counts from the shapes of the public checkpoints; they agree with the published 236/21, 15.7, 671/37,
// 46.7/12.9, 30.5/3.3, 8.03, 70.6 and 405.9 billion.
class PublishedCounts : public testing::TestWithParam<Published> {};

TEST_P(PublishedCounts, AreExact) {
  const auto config = load_model_config(GetParam().preset);
  const auto counts = count_parameters(config);
  EXPECT_EQ(counts.total, GetParam().total);
  EXPECT_EQ(counts.active, GetParam().active);
  EXPECT_EQ(counts.mtp, GetParam().mtp);
  EXPECT_EQ(kv_elements_per_token(config), GetParam().kv);
}

INSTANTIATE_TEST_SUITE_P(
    Presets, PublishedCounts,
    testing::Values(Published{"deepseek-v2", 235'741'434'880, 21'375'800'320, 0, 60 * 576},
                    Published{"deepseek-v2-lite", 15'706'484'224, 2'661'150'208, 0, 27 * 576},
                    Published{"deepseek-v3", 671'026'419'200, 37'552'297'472, 11'610'068'224, 61 * 576},
                    Published{"mixtral-8x7b", 46'702'792'704, 12'879'925'248, 0, 32 * 2048},
                    Published{"qwen3-30b-a3b", 30'532'122'624, 3'353'032'704, 0, 48 * 1024},
                    Published{"llama-3.1-8b", 8'030'261'248, 8'030'261'248, 0, 32 * 2048},
                    Published{"llama-3.1-70b", 70'553'706'496, 70'553'706'496, 0, 80 * 2048},
                    Published{"llama-3.1-405b", 405'853'388'800, 405'853'388'800, 0, 126 * 2048}),
    [](const auto& published) {
      std::string name = published.param.preset;
      for (char& c : name)
        if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
      return name;
    });

TEST(ModelConfig, SoftmaxScaleOfMlaHasMscaleSquared) {
  EXPECT_NEAR(load_model_config("deepseek-v2").softmax_scale(), 0.1147214, 1e-7);
  EXPECT_NEAR(load_model_config("deepseek-v3").softmax_scale(), 0.1352338, 1e-7);
  EXPECT_DOUBLE_EQ(load_model_config("mixtral-8x7b").softmax_scale(), 1 / std::sqrt(128.0));
}

TEST(ModelConfig, EveryPresetParsesAndRoundTrips) {
  const auto names = model_presets();
  ASSERT_GE(names.size(), 10u);
  for (const auto& name : names) {
    const auto config = load_model_config(name);
    EXPECT_EQ(parse_model_config(write_model_config(config)), config) << name;
  }
}

}  // namespace
}  // namespace sinew
