// Fields of a published run's row, whatever is missing or of another type. Inside this room only.
#pragma once

#include <cmath>
#include <nlohmann/json.hpp>
#include <string>

#include "plan/setup.hpp"

namespace sinew::plan {

using nlohmann::json;

inline const json& part(const json& row, const char* key) {
  static const json empty = json::object();
  const auto found = row.find(key);
  return found != row.end() && found->is_object() ? *found : empty;
}

inline double number(const json& o, const char* key, double absent = 0) {
  const auto found = o.find(key);
  if (found == o.end()) return absent;
  if (found->is_number()) return found->get<double>();
  if (found->is_boolean()) return found->get<bool>() ? 1 : 0;
  return absent;
}

inline std::int64_t whole(const json& o, const char* key, std::int64_t absent = 0) {
  const double v = number(o, key, static_cast<double>(absent));
  return v > -1e15 && v < 1e15 ? static_cast<std::int64_t>(std::llround(v)) : absent;
}

inline std::string text(const json& o, const char* key) {
  const auto found = o.find(key);
  return found != o.end() && found->is_string() ? found->get<std::string>() : "";
}

inline bool truth(const json& o, const char* key) {
  const auto found = o.find(key);
  return found != o.end() && found->is_boolean() && found->get<bool>();
}

inline bool given(const json& o, const char* key) {
  const auto found = o.find(key);
  return found != o.end() && !found->is_null();
}

inline std::string lower(std::string s) {
  for (char& c : s) c = static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
  return s;
}

inline bool has(const std::string& s, const char* word) { return s.find(word) != std::string::npos; }

// What the row's text says of the program that made the run (run_software.cpp).
Software parse_software(const json& row, const json& layout, const Accelerator& chip);

}  // namespace sinew::plan
