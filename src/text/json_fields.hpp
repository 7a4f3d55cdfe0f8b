// Fields of JSON objects with errors that say where: `FILE: model.unk_token must be a string`.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "base/error.hpp"

namespace sinew {

// An object of a JSON file and how to name it in errors.
struct JsonPlace {
  const nlohmann::json& value;
  std::string where;  // "tokenizer.json: pre_tokenizer"
  int depth = 0;      // nesting of sequences, bounded by enter()

  JsonPlace enter(const nlohmann::json& inner, const std::string& name) const {
    require(depth < 16, "{}: nested too deeply", where);
    return {inner, where + (where.ends_with(':') ? " " : ".") + name, depth + 1};
  }

  // The field, or null when it is absent or null.
  const nlohmann::json* find(const char* name) const {
    require(value.is_object(), "{} must be an object", where);
    const auto it = value.find(name);
    return it == value.end() || it->is_null() ? nullptr : &*it;
  }
  const nlohmann::json& get(const char* name) const {
    const auto* field = find(name);
    require(field != nullptr, "{} has no \"{}\"", where, name);
    return *field;
  }
  std::string text(const char* name) const {
    const auto& field = get(name);
    require(field.is_string(), "{}.{} must be a string", where, name);
    return field.get<std::string>();
  }
  std::string text(const char* name, const std::string& otherwise) const {
    return find(name) == nullptr ? otherwise : text(name);
  }
  bool flag(const char* name, bool otherwise) const {
    const auto* field = find(name);
    require(field == nullptr || field->is_boolean(), "{}.{} must be true or false", where, name);
    return field == nullptr ? otherwise : field->get<bool>();
  }
  std::int64_t integer(const char* name) const {
    const auto& field = get(name);
    require(field.is_number_integer(), "{}.{} must be a whole number", where, name);
    return field.get<std::int64_t>();
  }
  const nlohmann::json& list(const char* name) const {
    const auto& field = get(name);
    require(field.is_array(), "{}.{} must be a list", where, name);
    return field;
  }
};

// {"String": "..."} or {"Regex": "..."}
class Pattern;
Pattern parse_pattern(const JsonPlace& owner);

}  // namespace sinew
