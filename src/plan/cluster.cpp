#include "plan/cluster.hpp"

#include <toml++/toml.h>
#include <algorithm>
#include <cmath>

#include "base/error.hpp"
#include "base/files.hpp"
#include "base/text.hpp"

namespace sinew::plan {
namespace {

// A table whose keys are all known and whose numbers are sound.
class Reader {
 public:
  Reader(const toml::table& table, std::string where, std::vector<std::string> known)
      : table_(table), where_(std::move(where)) {
    for (const auto& [key, value] : table)
      require(std::find(known.begin(), known.end(), key.str()) != known.end(), "{}: unknown key '{}'{}",
              where_, std::string(key.str()), did_you_mean(key.str(), known));
  }

  // `least` is the smallest value allowed; above 0 means that zero is nonsense.
  bool number(const char* key, double& into, double scale = 1, bool positive = true) const {
    const auto node = table_[key];
    if (!node) return false;
    const auto value = node.value<double>();
    require(value.has_value() && std::isfinite(*value), "{}: {} must be a number", where_, key);
    require(positive ? *value > 0 : *value >= 0, "{}: {} is {}: it must {}", where_, key, *value,
            positive ? "be above zero" : "not be negative");
    into = *value * scale;
    return true;
  }
  bool whole(const char* key, int& into) const {
    const auto node = table_[key];
    if (!node) return false;
    const auto value = node.value<std::int64_t>();
    require(value.has_value() && *value >= 1 && *value <= 10000000,
            "{}: {} must be a whole number from 1 to 10,000,000", where_, key);
    into = static_cast<int>(*value);
    return true;
  }
  std::string text(const char* key) const { return table_[key].value_or(std::string()); }
  const toml::table& table() const { return table_; }
  const std::string& where() const { return where_; }

 private:
  const toml::table& table_;
  std::string where_;
};

Accelerator chip_from_numbers(const toml::table& table, const std::string& where) {
  const Reader r(table, where + ": accelerator",
                 {"name", "like", "bf16_tflops", "fp8_tflops", "int8_tops", "bf16_achievable_tflops",
                  "fp8_achievable_tflops", "hbm_gb", "hbm_tbps", "per_node", "domain", "scaleup_gbps",
                  "nic_gbit", "host_link_gbps", "power_w", "price_per_hour"});
  Accelerator a;
  const std::string like = r.text("like");
  if (!like.empty()) a = find_accelerator(like);
  a.name = r.text("name").empty() ? "custom" : r.text("name");
  const bool peak = r.number("bf16_tflops", a.bf16, 1e12);
  r.number("fp8_tflops", a.fp8, 1e12);
  r.number("int8_tops", a.int8, 1e12);
  r.number("bf16_achievable_tflops", a.bf16_achievable, 1e12);
  r.number("fp8_achievable_tflops", a.fp8_achievable, 1e12);
  const bool memory = r.number("hbm_gb", a.memory_bytes, 1e9),
             bandwidth = r.number("hbm_tbps", a.memory_bandwidth, 1e12);
  r.whole("per_node", a.per_node);
  r.whole("domain", a.scaleup_domain);
  const bool fabric = r.number("scaleup_gbps", a.scaleup, 1e9),
             card = r.number("nic_gbit", a.network, 1e9 / 8);
  r.number("host_link_gbps", a.host_link, 1e9);
  r.number("power_w", a.power_watts);
  r.number("price_per_hour", a.price_hour);
  require(!like.empty() || (peak && memory && bandwidth && fabric && card),
          "{}: accelerator: give `like` or all of bf16_tflops, hbm_gb, hbm_tbps, scaleup_gbps and nic_gbit",
          where);
  return a;
}

void read_levels(const toml::array& levels, Cluster& c, const std::string& where) {
  int index = 0, before = 1;
  for (const auto& node : levels) {
    require(node.is_table(), "{}: level: a table is wanted", where);
    const Reader r(*node.as_table(), fmt::format("{}: level {}", where, index + 1),
                   {"name", "size", "gbps", "gbit", "latency_us"});
    int size = c.count;
    r.whole("size", size);
    double bandwidth = 0, latency = 0;
    if (!r.number("gbps", bandwidth, 1e9)) r.number("gbit", bandwidth, 1e9 / 8);
    require(bandwidth > 0, "{}: give gbps (GB/s of one accelerator, one direction) or gbit", r.where());
    require(size >= before, "{}: size {} is smaller than the level inside it ({})", r.where(), size, before);
    before = size;
    const bool timed = r.number("latency_us", latency, 1e-6, false);
    if (index == 0) {
      c.chip.scaleup_domain = size;
      c.chip.scaleup = bandwidth;
      if (timed) c.latency_scaleup = latency;
    } else if (index == 1) {
      c.chip.network = bandwidth;
      if (timed) c.latency_network = latency;
      if (size < c.count) c.pod = size;
    } else if (c.pod_bandwidth == 0 || bandwidth < c.pod_bandwidth) {
      c.pod_bandwidth = bandwidth;  // the narrowest of the levels outside
      if (timed) c.latency_network = std::max(c.latency_network, latency);
    }
    ++index;
  }
}

void read_failures(const toml::table& table, FailureModel& f, const std::string& where) {
  const Reader r(table, where + ": failures",
                 {"per_1000_node_days", "per_million_hours", "components", "detect_s", "restart_s", "load_s",
                  "checkpoint_s", "interval_s", "in_memory", "memory_interval_s", "memory_checkpoint_s",
                  "memory_restart_s", "memory_share", "repair_hours", "hardware_share"});
  double rate = 0;
  if (r.number("per_1000_node_days", rate, 1, false))
    f.components = {{"all", rate / 1000 / 24 / f.accelerators_per_node * 1e6}};
  if (r.number("per_million_hours", rate, 1, false)) f.components = {{"all", rate}};
  if (const auto* list = table["components"].as_table()) {
    f.components.clear();
    for (const auto& [key, value] : *list) {
      const auto number = value.value<double>();
      require(number.has_value() && *number >= 0, "{}: components.{} must not be negative", r.where(),
              std::string(key.str()));
      f.components.push_back({std::string(key.str()), *number});
    }
  }
  r.number("detect_s", f.detect, 1, false);
  r.number("restart_s", f.restart, 1, false);
  r.number("load_s", f.load, 1, false);
  r.number("checkpoint_s", f.checkpoint, 1, false);
  r.number("interval_s", f.interval);
  r.number("memory_interval_s", f.memory_interval);
  r.number("memory_checkpoint_s", f.memory_checkpoint, 1, false);
  r.number("memory_restart_s", f.memory_restart, 1, false);
  r.number("memory_share", f.memory_share, 1, false);
  r.number("repair_hours", f.repair_hours, 1, false);
  r.number("hardware_share", f.hardware_share, 1, false);
  require(f.memory_share <= 1 && f.hardware_share <= 1, "{}: shares are at most 1", r.where());
  f.in_memory = table["in_memory"].value_or(f.in_memory);
}

Cluster read_one(const toml::table& table, const std::string& where) {
  const Reader r(table, where,
                 {"name", "accelerator", "count", "price_per_hour", "watts_per_accelerator", "level",
                  "storage", "failures", "island", "islands"});
  Cluster c;
  int count = 0;
  require(r.whole("count", count), "{}: count (accelerators) is missing", where);
  if (const auto* numbers = table["accelerator"].as_table()) {
    c.chip = chip_from_numbers(*numbers, where);
    c.price_hour = c.chip.price_hour;
    c.watts = 1.4 * c.chip.power_watts;
    c.failures.accelerators_per_node = c.chip.per_node;
    c.count = count;
  } else {
    require(!r.text("accelerator").empty(),
            "{}: accelerator (a name of the catalogue, or a table of numbers) is missing", where);
    c = cluster_of(r.text("accelerator"), count);
  }
  if (!r.text("name").empty()) c.name = r.text("name");
  r.number("price_per_hour", c.price_hour, 1, false);
  r.number("watts_per_accelerator", c.watts, 1, false);
  if (const auto* levels = table["level"].as_array()) read_levels(*levels, c, where);
  if (const auto* storage = table["storage"].as_table()) {
    const Reader s(*storage, where + ": storage", {"gbps"});
    s.number("gbps", c.storage_bandwidth, 1e9);
  }
  if (const auto* failures = table["failures"].as_table()) read_failures(*failures, c.failures, where);
  return c;
}

}  // namespace

Cluster cluster_of(const std::string& accelerator, int count) {
  require(count >= 1 && count <= 10000000, "cluster: {} accelerators: 1 to 10,000,000", count);
  Cluster c;
  c.chip = find_accelerator(accelerator);
  c.count = count;
  c.name = fmt::format("{} x {}", count, c.chip.name);
  if (c.chip.network <= 0) c.chip.network = c.chip.data_centre > 0 ? c.chip.data_centre : 25e9 / 8;
  if (c.chip.scaleup <= 0) c.chip.scaleup = c.chip.network;
  c.price_hour = c.chip.price_hour;
  // Hosts, network and cooling take about as much again as two fifths of the accelerators (DGX H100: 10.2 kW
  // for 5.6 kW of accelerators; PUE 1.1 in new data centres).
  c.watts = (c.chip.power_watts > 0 ? c.chip.power_watts : 500) * 1.4;
  c.failures.accelerators_per_node = c.chip.per_node;
  return c;
}

Islands parse_cluster(const std::string& text, const std::string& origin) {
  toml::table document;
  try {
    document = toml::parse(text, origin);
  } catch (const toml::parse_error& error) {
    fail("{}:{}: {}", origin, error.source().begin.line, std::string(error.description()));
  }
  Islands islands;
  if (const auto* list = document["island"].as_array()) {
    for (const auto& node : *list) {
      require(node.is_table(), "{}: island: a table is wanted", origin);
      islands.parts.push_back(
          read_one(*node.as_table(), fmt::format("{}: island {}", origin, islands.parts.size() + 1)));
    }
    require(!islands.parts.empty(), "{}: no islands", origin);
    if (const auto* how = document["islands"].as_table()) {
      const Reader r(*how, origin + ": islands", {"link_gbit", "outer_steps"});
      r.number("link_gbit", islands.link, 1e9 / 8);
      r.whole("outer_steps", islands.outer_steps);
    }
    return islands;
  }
  islands.parts.push_back(read_one(document, origin));
  return islands;
}

Islands read_cluster(const std::filesystem::path& path) {
  return parse_cluster(read_file(path, 1 << 20), path.string());
}

Setup setup_for(const Cluster& c, const Network& network, const Job& job) {
  Setup s;
  s.network = network;
  s.chip = c.chip;
  s.count = c.count;
  s.job = job;
  s.software = modern();
  s.software.date = std::max(2025.5, c.chip.year + 1);
  s.software.overlap_experts = true;
  s.software.dedupe_dispatch = true;
  s.software.overlap_tensor = true;
  if (job.precision == Precision::fp8 || job.precision == Precision::fp8_block) s.software.dispatch_bytes = 1;
  s.latency_scaleup = c.latency_scaleup;
  s.latency_network = c.latency_network;
  s.pod = c.pod;
  s.pod_bandwidth = c.pod_bandwidth;
  return s;
}

}  // namespace sinew::plan
