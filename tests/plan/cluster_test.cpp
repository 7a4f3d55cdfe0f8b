#include "plan/cluster.hpp"

#include <gtest/gtest.h>

#include "base/error.hpp"

namespace sinew::plan {
namespace {

std::string refusal(const std::string& toml) {
  try {
    parse_cluster(toml, "c.toml");
  } catch (const UserError& error) {
    return error.what();
  }
  return "";
}

TEST(Cluster, ReadsLevelsPricesAndFailures) {
  const Islands islands = parse_cluster(R"(
name = "ours"
accelerator = "H800"
count = 2048
price_per_hour = 2.0
[[level]]
name = "node"
size = 8
gbps = 160
latency_us = 4
[[level]]
name = "pod"
size = 512
gbit = 400
[[level]]
name = "between pods"
gbit = 100
[storage]
gbps = 200
[failures]
per_1000_node_days = 4
in_memory = true
)",
                                        "c.toml");
  ASSERT_EQ(islands.parts.size(), 1u);
  const Cluster& c = islands.parts[0];
  EXPECT_EQ(c.chip.scaleup_domain, 8);
  EXPECT_DOUBLE_EQ(c.chip.scaleup, 160e9);
  EXPECT_DOUBLE_EQ(c.chip.network, 50e9);
  EXPECT_EQ(c.pod, 512);
  EXPECT_DOUBLE_EQ(c.pod_bandwidth, 12.5e9);
  EXPECT_DOUBLE_EQ(c.price_hour, 2);
  EXPECT_TRUE(c.failures.in_memory);
  EXPECT_NEAR(failures_per_hour(c.failures, 8000) * 24, 4, 1e-9);  // 1,000 nodes
}

TEST(Cluster, AcceleratorByNumbersAndIslands) {
  const Islands islands = parse_cluster(R"(
[islands]
link_gbit = 10
outer_steps = 500
[[island]]
accelerator = "A100"
count = 64
[[island]]
count = 32
[island.accelerator]
like = "H100"
hbm_gb = 96
)",
                                        "c.toml");
  ASSERT_EQ(islands.parts.size(), 2u);
  EXPECT_DOUBLE_EQ(islands.parts[1].chip.memory_bytes, 96e9);
  EXPECT_EQ(islands.parts[1].chip.family, "hopper");
  EXPECT_EQ(islands.outer_steps, 500);
  EXPECT_DOUBLE_EQ(islands.link, 1.25e9);
}

TEST(Cluster, NonsenseGetsOneClearLine) {
  EXPECT_NE(refusal("accelerator = \"H10O\"\ncount = 8").find("H100"), std::string::npos);
  EXPECT_NE(refusal("acelerator = \"H100\"\ncount = 8").find("accelerator"), std::string::npos);
  EXPECT_NE(refusal("accelerator = \"H100\"").find("count"), std::string::npos);
  EXPECT_NE(refusal("accelerator = \"H100\"\ncount = 0").find("count"), std::string::npos);
  EXPECT_NE(refusal("accelerator = \"H100\"\ncount = 8\nprice_per_hour = -1").find("price_per_hour"),
            std::string::npos);
  EXPECT_NE(refusal("accelerator = \"H100\"\ncount = 8\n[[level]]\nsize = 8\ngbps = 0").find("gbps"),
            std::string::npos);
  EXPECT_NE(refusal("accelerator = \"H100\"\ncount = 8\n[failures]\nrestart_s = -4").find("restart_s"),
            std::string::npos);
  EXPECT_NE(refusal("count = 8\n[accelerator]\nbf16_tflops = 100").find("hbm_gb"), std::string::npos);
  EXPECT_NE(refusal("count = [").find("c.toml:1"), std::string::npos);
}

}  // namespace
}  // namespace sinew::plan
