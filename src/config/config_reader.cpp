#include "config/config_reader.hpp"

#include <algorithm>
#include <cmath>

#include "base/text.hpp"

namespace sinew {
namespace {

// The value as people wrote it, short.
std::string shown(const Json& value) {
  if (value.is_string()) return "\"" + printable(value.get_ref<const std::string&>()) + "\"";
  if (value.is_object()) return "an object";
  if (value.is_array()) return "a list";
  return value.dump();
}

}  // namespace

std::string printable(std::string_view text, std::size_t limit) {
  const bool whole = text.size() <= limit;
  if (!whole) text = text.substr(0, limit);
  const bool utf8 = valid_utf8(text);
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f || (byte >= 0x80 && !utf8)) {
      out += fmt::format("\\x{:02x}", byte);
    } else {
      out += c;
    }
  }
  return whole ? out : out + "...";
}

ConfigReader::ConfigReader(const Json& object, std::string origin, std::string prefix)
    : object_(object), origin_(std::move(origin)), prefix_(std::move(prefix)) {}

bool ConfigReader::has(std::string_view key) const {
  const auto found = object_.find(key);
  return found != object_.end() && !found->is_null();
}

std::string_view ConfigReader::find(Names names) const {
  for (const auto name : names)
    if (has(name)) return name;
  return "";
}

void ConfigReader::missing(std::string_view key) const {
  std::vector<std::string> strangers;
  for (const auto& item : object_.items())
    if (!known_config_key(item.key())) strangers.push_back(item.key());
  const std::string near = nearest_name(key, strangers);
  if (near.empty()) bad(key, "is missing");
  bad(key, "is missing; is \"{}\" a misspelling of it?", printable(near));
}

std::int64_t ConfigReader::integer(Names names, std::int64_t low, std::int64_t high) const {
  const auto key = find(names);
  if (key.empty()) missing(*names.begin());
  const Json& value = *object_.find(key);
  check(value.is_number_integer(), key, "must be a whole number, not {}", shown(value));
  const bool huge =
      value.is_number_unsigned() && value.get<std::uint64_t>() > static_cast<std::uint64_t>(high);
  const std::int64_t number = huge ? high : value.get<std::int64_t>();
  check(!huge && number >= low && number <= high, key, "must be from {} to {}, not {}", low, high,
        shown(value));
  return number;
}

std::int64_t ConfigReader::integer_or(Names names, std::int64_t fallback, std::int64_t low,
                                      std::int64_t high) const {
  return find(names).empty() ? fallback : integer(names, low, high);
}

double ConfigReader::number(Names names, double low, double high) const {
  const auto key = find(names);
  if (key.empty()) missing(*names.begin());
  const Json& value = *object_.find(key);
  check(value.is_number(), key, "must be a number, not {}", shown(value));
  const auto number = value.get<double>();
  check(std::isfinite(number) && number >= low && number <= high, key, "must be from {} to {}, not {}", low,
        high, shown(value));
  return number;
}

double ConfigReader::number_or(Names names, double fallback, double low, double high) const {
  return find(names).empty() ? fallback : number(names, low, high);
}

bool ConfigReader::boolean_or(std::string_view key, bool fallback) const {
  if (!has(key)) return fallback;
  const Json& value = *object_.find(key);
  check(value.is_boolean(), key, "must be true or false, not {}", shown(value));
  return value.get<bool>();
}

std::string ConfigReader::text(std::string_view key) const {
  if (!has(key)) missing(key);
  const Json& value = *object_.find(key);
  check(value.is_string(), key, "must be a string, not {}", shown(value));
  return value.get<std::string>();
}

std::string ConfigReader::text_or(std::string_view key, std::string_view fallback) const {
  return has(key) ? text(key) : std::string(fallback);
}

std::vector<std::int64_t> ConfigReader::integers(std::string_view key, std::int64_t low,
                                                 std::int64_t high) const {
  if (!has(key)) return {};
  const Json& value = *object_.find(key);
  if (!value.is_array()) return {integer({key}, low, high)};
  std::vector<std::int64_t> list;
  for (const Json& item : value) {
    check(item.is_number_integer(), key, "must hold whole numbers, not {}", shown(item));
    const bool fits =
        !item.is_number_unsigned() || item.get<std::uint64_t>() <= static_cast<std::uint64_t>(high);
    check(fits && item.get<std::int64_t>() >= low && item.get<std::int64_t>() <= high, key,
          "must hold numbers from {} to {}, not {}", low, high, shown(item));
    list.push_back(item.get<std::int64_t>());
  }
  return list;
}

ConfigReader ConfigReader::object(std::string_view key) const {
  if (!has(key)) missing(key);
  const Json& value = *object_.find(key);
  check(value.is_object(), key, "must be an object, not {}", shown(value));
  return {value, origin_, prefix_ + std::string(key) + "."};
}

void ConfigReader::all_equal(std::string_view key, std::string_view value) const {
  const Json& list = *object_.find(key);
  check(list.is_array(), key, "must be a list, not {}", shown(list));
  for (const Json& item : list)
    check(item == value, key, "holds {}, but Sinew builds only \"{}\"", shown(item), value);
}

void ConfigReader::refuse_objects(std::string_view why) const {
  for (const auto& item : object_.items())
    check(!item.value().is_object(), printable(item.key()), "is an object, {}", why);
}

}  // namespace sinew
