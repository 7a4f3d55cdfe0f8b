#include "config/run_config.hpp"

#include <fmt/format.h>
#include <toml++/toml.h>

#include <algorithm>

#include "base/error.hpp"
#include "base/files.hpp"
#include "base/text.hpp"
#include "config/run_settings.hpp"

namespace sinew {
namespace {

constexpr std::size_t kMaxBytes = 256 << 10;
constexpr int kMaxDotsInLine = 32, kMaxBraces = 64;

std::vector<std::string> section_names() {
  std::vector<std::string> names;
  for (const auto& setting : run_settings())
    if (std::find(names.begin(), names.end(), setting.section) == names.end())
      names.push_back(setting.section);
  return names;
}

std::vector<std::string> setting_names() {
  std::vector<std::string> names;
  for (const auto& setting : run_settings()) names.push_back(setting.name());
  return names;
}

const Setting* find_setting(std::string_view section, std::string_view key) {
  for (const auto& setting : run_settings())
    if (setting.section == section && setting.key == key) return &setting;
  return nullptr;
}

std::string position(const std::string& origin, const toml::source_region& source) {
  return fmt::format("{}:{}:{}", origin, source.begin.line, source.begin.column);
}

std::string_view kind_of(const toml::node& node) {
  switch (node.type()) {
    case toml::node_type::table:
      return "a table";
    case toml::node_type::array:
      return "a list";
    case toml::node_type::string:
      return "text";
    case toml::node_type::integer:
      return "an integer";
    case toml::node_type::floating_point:
      return "a number";
    case toml::node_type::boolean:
      return "true or false";
    default:
      return "a date or time";
  }
}

// Assigns one TOML value to one setting; `where` begins every message.
class Assign {
 public:
  Assign(const Setting& setting, const toml::node& node, const std::string& where)
      : setting_(setting), node_(node), where_(where) {}

  void operator()(bool* out) const {
    if (!node_.is_boolean()) wrong(node_);
    *out = node_.as_boolean()->get();
  }
  void operator()(std::int64_t* out) const {
    if (!node_.is_integer()) wrong(node_);
    *out = node_.as_integer()->get();
    in_range(static_cast<double>(*out));
  }
  void operator()(double* out) const { *out = number(node_); }
  void operator()(std::string* out) const {
    *out = text(node_);
    const auto& choices = setting_.choices;
    if (!choices.empty() && std::find(choices.begin(), choices.end(), *out) == choices.end())
      fail("{}: {} is \"{}\", but must be one of {}{}", where_, setting_.name(), *out, join(choices, ", "),
           did_you_mean(*out, choices));
  }
  void operator()(std::vector<std::string>* out) const {
    list(out, [this](const toml::node& item) { return text(item); });
  }
  void operator()(std::vector<double>* out) const {
    list(out, [this](const toml::node& item) { return number(item); });
  }

 private:
  [[noreturn]] void wrong(const toml::node& node) const {
    fail("{}: {} must be {} {}, not {}", where_, setting_.name(),
         setting_type(setting_) == "integer" ? "an" : "a", setting_type(setting_), kind_of(node));
  }
  void in_range(double value) const {
    if (value >= setting_.low && value <= setting_.high) return;
    if (value < setting_.low)
      fail("{}: {} is {}, but must be at least {}", where_, setting_.name(), value, setting_.low);
    fail("{}: {} is {}, but must be at most {}", where_, setting_.name(), value, setting_.high);
  }
  double number(const toml::node& node) const {
    if (!node.is_number()) wrong(node);
    const double value =
        node.is_integer() ? static_cast<double>(node.as_integer()->get()) : node.as_floating_point()->get();
    if (!(value - value == 0)) fail("{}: {} must be a finite number", where_, setting_.name());
    in_range(value);
    return value;
  }
  std::string text(const toml::node& node) const {
    if (!node.is_string()) wrong(node);
    return node.as_string()->get();
  }
  template <class T, class Read>
  void list(std::vector<T>* out, Read read) const {
    out->clear();
    if (!node_.is_array()) return out->push_back(read(node_));  // one value stands for a list of one
    for (const auto& item : *node_.as_array()) out->push_back(read(item));
  }

  const Setting& setting_;
  const toml::node& node_;
  const std::string& where_;
};

// toml++ bounds nested values, but keys like a.b.c nest without bound and are freed by recursion.
void refuse_deep_nesting(std::string_view text, const std::string& origin) {
  require(text.size() <= kMaxBytes, "{}: {} bytes, more than the {} a run's settings may have", origin,
          text.size(), kMaxBytes);
  int line = 1, dots = 0, braces = 0;
  for (const char c : text) {
    if (c == '\n') {
      ++line;
      dots = 0;
    }
    dots += c == '.';
    braces += c == '{';
    if (dots > kMaxDotsInLine)
      fail("{}:{}: over {} points in one line; break it into several", origin, line, kMaxDotsInLine);
    if (braces > kMaxBraces) fail("{}:{}: over {} braces; use [section] tables", origin, line, kMaxBraces);
  }
}

toml::table parse(std::string_view text, const std::string& origin) {
  refuse_deep_nesting(text, origin);
  try {
    return toml::parse(text, origin);
  } catch (const toml::parse_error& error) {
    fail("{}: {}", position(origin, error.source()), error.description());
  }
}

void apply_section(RunConfig& config, const std::string& section, const toml::table& table,
                   const std::string& origin) {
  for (const auto& [key, node] : table) {
    const std::string where = position(origin, key.source());
    const Setting* setting = find_setting(section, key.str());
    if (setting == nullptr) {
      const std::string name = section + "." + std::string(key.str());
      fail("{}: unknown setting {}{}", where, name, did_you_mean(name, setting_names()));
    }
    std::visit(Assign(*setting, node, where), setting->slot(config));
    config.origins[setting->name()] = where;
  }
}

std::string origin_of(const RunConfig& config, const std::string& name) {
  const auto found = config.origins.find(name);
  return found == config.origins.end() ? "default" : found->second;
}

}  // namespace

void apply_toml(RunConfig& config, std::string_view text, const std::string& origin) {
  const toml::table root = parse(text, origin);
  const auto sections = section_names();
  for (const auto& [key, node] : root) {
    const std::string name(key.str()), where = position(origin, key.source());
    if (std::find(sections.begin(), sections.end(), name) == sections.end()) {
      if (!node.is_table()) {  // a key outside any section: is it one of a section's?
        for (const auto& setting : run_settings())
          if (setting.key == name) fail("{}: {} belongs under [{}]", where, name, setting.section);
      }
      fail("{}: unknown section [{}]{}", where, name, did_you_mean(name, sections));
    }
    require(node.is_table(), "{}: {} is a section, write [{}]", where, name, name);
    apply_section(config, name, *node.as_table(), origin);
  }
}

void apply_toml_file(RunConfig& config, const std::filesystem::path& path) {
  apply_toml(config, read_file(path, kMaxBytes), path.string());
}

void apply_set(RunConfig& config, std::string_view assignment) {
  const std::string where = fmt::format("--set {}", assignment);
  const std::size_t equals = assignment.find('='), dot = assignment.substr(0, equals).find('.');
  require(equals != std::string_view::npos && dot != std::string_view::npos,
          "{}: write --set section.key=value", where);
  const std::string name(assignment.substr(0, equals));
  std::string value(assignment.substr(equals + 1));
  const Setting* setting =
      find_setting(std::string_view(name).substr(0, dot), std::string_view(name).substr(dot + 1));
  if (setting == nullptr) fail("{}: unknown setting {}{}", where, name, did_you_mean(name, setting_names()));
  const Slot slot = setting->slot(config);
  const bool plain = value.empty() || (value[0] != '"' && value[0] != '\'' && value[0] != '[');
  if (std::holds_alternative<std::string*>(slot) && plain) {
    std::visit(Assign(*setting, toml::value<std::string>(value), where), slot);
  } else if (std::holds_alternative<std::vector<std::string>*>(slot) && plain) {
    toml::array items;
    if (!value.empty())
      for (const auto& item : split(value, ',')) items.push_back(item);
    std::visit(Assign(*setting, items, where), slot);
  } else {
    if (std::holds_alternative<std::vector<double>*>(slot) && plain) value = "[" + value + "]";
    require(value.find('\n') == std::string::npos, "{}: a value is one line", where);
    toml::table table;
    try {
      refuse_deep_nesting(value, where);
      table = toml::parse("value = " + value);
    } catch (const toml::parse_error&) {
      fail("{}: {} is not a {}", where, value, setting_type(*setting));
    }
    std::visit(Assign(*setting, *table.get("value"), where), slot);
  }
  config.origins[setting->name()] = "--set";
}

void check_run_config(const RunConfig& c) {
  const auto at = [&](const char* name) { return fmt::format("{} ({})", name, origin_of(c, name)); };
  require(!c.model.config.empty() || !c.model.init.empty(),
          "model.config is not set: name a preset of configs/models, a config.json or a model directory");
  require(!c.data.path.empty(), "data.path is not set: name a data set made by `sinew data`");
  require(c.data.weights.empty() || c.data.weights.size() == c.data.path.size(),
          "{} has {} values, but {} has {}: give one weight a data set", at("data.weights"),
          c.data.weights.size(), at("data.path"), c.data.path.size());
  const auto positive = [](double w) { return w > 0; };
  require(std::all_of(c.data.weights.begin(), c.data.weights.end(), positive),
          "{}: every weight must be over 0; leave a data set out instead", at("data.weights"));
  const auto& t = c.train;
  require(t.micro_batch <= t.batch, "{} is {}, more than {} = {}", at("train.micro_batch"), t.micro_batch,
          at("train.batch"), t.batch);
  require(t.batch_start <= t.batch, "{} is {}, more than {} = {}", at("train.batch_start"), t.batch_start,
          at("train.batch"), t.batch);
  require(t.batch_start == 0 || t.batch_start == t.batch || t.batch_ramp > 0,
          "{} is {}, but {} is 0: say over how many steps the batch grows", at("train.batch_start"),
          t.batch_start, at("train.batch_ramp"));
  require(t.batch_ramp == 0 || t.batch_start > 0, "{} is {}, but {} is not set: say where the batch starts",
          at("train.batch_ramp"), t.batch_ramp, at("train.batch_start"));
  require(t.batch_ramp <= t.steps, "{} is {}, more than {} = {}", at("train.batch_ramp"), t.batch_ramp,
          at("train.steps"), t.steps);
  require(t.spike_factor == 0 || t.spike_factor > 1, "{} is {}: it must be over 1, or 0 for never",
          at("train.spike_factor"), t.spike_factor);
  const auto& s = c.schedule;
  require(s.warmup <= t.steps, "{} is {}, more than {} = {}", at("schedule.warmup"), s.warmup,
          at("train.steps"), t.steps);
  if (s.kind == "wsd") {
    const auto decay = static_cast<std::int64_t>(s.decay_fraction * static_cast<double>(t.steps));
    require(s.warmup + decay <= t.steps, "{} = {} and {} = {} ({} steps) leave no room in {} = {}",
            at("schedule.warmup"), s.warmup, at("schedule.decay_fraction"), s.decay_fraction, decay,
            at("train.steps"), t.steps);
  }
  require(std::is_sorted(s.step_fractions.begin(), s.step_fractions.end()), "{}: the fractions must rise",
          at("schedule.step_fractions"));
  require(c.optimizer.lr > 0, "{} is 0: nothing would be learned", at("optimizer.lr"));
  const auto& b = c.balance;
  require(b.device_limit <= b.device_groups, "{} is {}, more than {} = {}", at("balance.device_limit"),
          b.device_limit, at("balance.device_groups"), b.device_groups);
  require((b.device_alpha == 0 && b.communication_alpha == 0) || b.device_groups > 1,
          "{} is set, but {} is 1: say how many groups the experts form",
          at(b.device_alpha != 0 ? "balance.device_alpha" : "balance.communication_alpha"),
          at("balance.device_groups"));
}

RunConfig load_run_config(std::span<const std::string> files, std::span<const std::string> sets) {
  RunConfig config;
  for (const auto& file : files) apply_toml_file(config, file);
  for (const auto& set : sets) apply_set(config, set);
  check_run_config(config);
  return config;
}

std::string to_toml(const RunConfig& config) {
  std::string out, section;
  for (const auto& setting : run_settings()) {
    if (setting.section != section)
      out += fmt::format("{}[{}]\n", section.empty() ? "" : "\n", setting.section);
    section = setting.section;
    out += fmt::format("{} = {}\n", setting.key, setting_value(setting, config));
  }
  return out;
}

std::string print_config(const RunConfig& config) {
  std::string out;
  for (const auto& setting : run_settings())
    out += fmt::format("{:<28} {:<24} # {}\n", setting.name() + " =", setting_value(setting, config),
                       origin_of(config, setting.name()));
  return out;
}

std::string help_config() {
  const RunConfig defaults;
  std::string out =
      "Settings of a run, by section. Set them in TOML files (--config) or by --set section.key=value.\n";
  std::string section;
  for (const auto& setting : run_settings()) {
    if (setting.section != section) out += fmt::format("\n[{}]\n", section = setting.section);
    std::string type = setting.choices.empty() ? setting_type(setting) : join(setting.choices, " | ");
    if (setting.low > -1e300 && setting.choices.empty())
      type += setting.high < 1e15 ? fmt::format(", {:.10g} to {:.10g}", setting.low, setting.high)
                                  : fmt::format(", at least {:.10g}", setting.low);
    out += fmt::format("  {} = {}  ({})\n      {}\n", setting.key, setting_value(setting, defaults), type,
                       setting.help);
  }
  return out;
}

std::vector<std::string> config_differences(const RunConfig& before, const RunConfig& after) {
  std::vector<std::string> differences;
  for (const auto& setting : run_settings()) {
    const std::string a = setting_value(setting, before), b = setting_value(setting, after);
    if (a != b) differences.push_back(fmt::format("{}: {} -> {}", setting.name(), a, b));
  }
  return differences;
}

}  // namespace sinew
