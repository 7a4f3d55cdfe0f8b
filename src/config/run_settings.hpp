// The table behind RunConfig: one row a setting.
#pragma once

#include <limits>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "config/run_config.hpp"

namespace sinew {

using Slot = std::variant<bool*, std::int64_t*, double*, std::string*, std::vector<std::string>*,
                          std::vector<double>*>;

struct Setting {
  std::string section, key;
  Slot (*slot)(RunConfig&);
  std::string help;  // begins with the unit where there is one
  double low = std::numeric_limits<double>::lowest(), high = std::numeric_limits<double>::max();
  std::vector<std::string> choices{};
  std::string name() const { return section + "." + key; }
};

std::span<const Setting> run_settings();

// The value as TOML, e.g. `"cosine"`, `0.003`, `[0.6, 0.9]`.
std::string setting_value(const Setting& setting, const RunConfig& config);
std::string setting_type(const Setting& setting);  // "integer", "list of numbers", ..

}  // namespace sinew
