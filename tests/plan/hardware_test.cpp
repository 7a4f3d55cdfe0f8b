#include "plan/hardware.hpp"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "support/support.hpp"

namespace sinew::plan {
namespace {

TEST(Hardware, CatalogueCoversTheAccelerators) {
  for (const char* name :
       {"A100",    "A800",        "H100",        "H800",     "H20",       "H200",    "B200",
        "GB200",   "GB300",       "MI300X",      "MI325X",   "TPU v4",    "TPU v5e", "TPU v5p",
        "TPU v6e", "Ascend 910B", "Ascend 910C", "RTX 4090", "Trainium2", "CPU"}) {
    const Accelerator& a = find_accelerator(name);
    EXPECT_GT(a.bf16, 0) << name;
    EXPECT_GT(a.memory_bandwidth, 0) << name;
    EXPECT_GT(a.memory_bytes, 0) << name;
    EXPECT_LE(a.bf16_achievable, a.bf16) << name;
  }
}

TEST(Hardware, EveryNumberNamesItsSource) {
  const auto doc = nlohmann::json::parse(test::slurp(test::source_path("data/hardware/accelerators.json")));
  int numbers = 0;
  for (const auto& entry : doc.at("accelerators"))
    for (const auto& [key, value] : entry.items())
      if (value.is_object()) {
        EXPECT_FALSE(value.at("source").get<std::string>().empty()) << entry.at("name") << " " << key;
        ++numbers;
      } else {
        EXPECT_TRUE(!value.is_number() || key == "year")
            << entry.at("name") << " " << key << " has no source";
      }
  EXPECT_GT(numbers, 300);
}

TEST(Hardware, UnknownNamesGetTheNearest) {
  try {
    find_accelerator("H10O");
    FAIL();
  } catch (const UserError& error) {
    EXPECT_NE(std::string(error.what()).find("H100"), std::string::npos) << error.what();
  }
}

TEST(Hardware, ReferenceNumbersAreKept) {
  SINEW_NEED_DATA();
  const auto doc = nlohmann::json::parse(test::slurp(test::data_dir() / "planner/hardware.json"));
  for (const auto& entry : doc.at("accelerators")) {
    const Accelerator& a = find_accelerator(entry.at("name").get<std::string>());
    EXPECT_DOUBLE_EQ(a.bf16, entry.at("dense_tflops").at("bf16").get<double>() * 1e12) << a.name;
    EXPECT_DOUBLE_EQ(a.memory_bytes, entry.at("hbm_gb").get<double>() * 1e9) << a.name;
    EXPECT_DOUBLE_EQ(a.scaleup, entry.at("scaleup").at("gbps_uni").get<double>() * 1e9) << a.name;
  }
}

}  // namespace
}  // namespace sinew::plan
