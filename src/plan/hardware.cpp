#include "plan/hardware.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "base/files.hpp"
#include "base/text.hpp"
#include "plan/data_files.hpp"

namespace sinew::plan {
namespace {

using nlohmann::json;

const json& document() {
  static const json loaded = [] {
    const auto path = data_dir() / "hardware" / "accelerators.json";
    try {
      return json::parse(read_file(path));
    } catch (const json::exception& error) {
      fail("{}: {}", path.string(), error.what());
    }
  }();
  return loaded;
}

double number(const json& entry, const char* key, double scale = 1, double absent = 0) {
  const auto found = entry.find(key);
  if (found == entry.end()) return absent;
  const double value = found->at("value").get<double>();
  require(value >= 0, "accelerators.json: {}: {} is negative", entry.at("name").get<std::string>(), key);
  return value * scale;
}

Accelerator parse(const json& entry) {
  Accelerator a;
  a.name = entry.at("name");
  a.aliases = entry.at("aliases").get<std::vector<std::string>>();
  a.vendor = entry.at("vendor");
  a.family = entry.at("family");
  a.year = number(entry, "available", 1, entry.at("year").get<double>() + 0.6);
  a.bf16 = number(entry, "bf16_tflops", 1e12);
  a.fp8 = number(entry, "fp8_tflops", 1e12);
  a.fp4 = number(entry, "fp4_tflops", 1e12);
  a.int8 = number(entry, "int8_tops", 1e12);
  a.fp32 = number(entry, "fp32_tflops", 1e12);
  a.bf16_achievable = number(entry, "bf16_achievable_tflops", 1e12);
  a.fp8_achievable = number(entry, "fp8_achievable_tflops", 1e12);
  a.memory_bytes = number(entry, "hbm_gb", 1e9);
  a.memory_bandwidth = number(entry, "hbm_tbps", 1e12);
  a.per_node = static_cast<int>(number(entry, "accelerators_per_node", 1, 8));
  a.scaleup_domain = static_cast<int>(number(entry, "scaleup_domain", 1, 1));
  a.scaleup = number(entry, "scaleup_gbps", 1e9);
  a.network = number(entry, "nic_gbit", 1e9 / 8);
  a.host_link = number(entry, "host_link_gbps", 1e9, 32e9);
  a.data_centre = number(entry, "dcn_gbps", 1e9);
  a.torus = entry.contains("torus");
  a.power_watts = number(entry, "power_w");
  a.price_hour = (number(entry, "price_low_usd_hour") + number(entry, "price_high_usd_hour")) / 2;
  a.note = entry.value("note", "");
  return a;
}

std::string folded(std::string_view text) {
  std::string out;
  for (const char c : text)
    if (c != ' ' && c != '-' && c != '_') out += static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
  return out;
}

}  // namespace

const std::vector<Accelerator>& accelerators() {
  static const std::vector<Accelerator> all = [] {
    std::vector<Accelerator> list;
    for (const json& entry : document().at("accelerators")) list.push_back(parse(entry));
    return list;
  }();
  return all;
}

const Accelerator* accelerator_named(std::string_view name) {
  const std::string wanted = folded(name);
  for (const Accelerator& a : accelerators()) {
    if (folded(a.name) == wanted) return &a;
    for (const std::string& alias : a.aliases)
      if (folded(alias) == wanted) return &a;
  }
  return nullptr;
}

const Accelerator& find_accelerator(std::string_view name) {
  if (const Accelerator* found = accelerator_named(name)) return *found;
  std::vector<std::string> names;
  for (const Accelerator& a : accelerators()) {
    names.push_back(a.name);
    names.insert(names.end(), a.aliases.begin(), a.aliases.end());
  }
  fail("accelerator '{}': not in the catalogue (`sinew plan hardware` lists it){}", name,
       did_you_mean(name, names));
}

std::string describe_accelerator(std::string_view name) {
  const Accelerator& wanted = find_accelerator(name);
  std::string out;
  for (const json& entry : document().at("accelerators")) {
    if (entry.at("name") != wanted.name) continue;
    out = fmt::format("{} ({}, {})\n", wanted.name, wanted.vendor, entry.at("year").get<int>());
    for (const auto& [key, value] : entry.items())
      if (value.is_object())
        out += fmt::format("  {:<26} {:<12} {}\n", key, value.at("value").dump(),
                           value.at("source").get<std::string>());
    if (!wanted.note.empty()) out += "  " + wanted.note + "\n";
  }
  return out;
}

}  // namespace sinew::plan
