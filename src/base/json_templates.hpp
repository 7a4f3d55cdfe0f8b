// nlohmann/json, compiled once (json_templates.cpp) instead of in each of the 60 files that read or write
// JSON: a second of the compiler's time a file. The precompiled headers include it; code includes
// <nlohmann/json.hpp>.
#pragma once

#include <nlohmann/json.hpp>

#include <string>

// SINEW_JSON_TEMPLATES(template) defines them, SINEW_JSON_TEMPLATES(extern template) says that they are
// elsewhere.
#define SINEW_JSON_READER(keyword, Json, Input)                                                           \
  keyword class nlohmann::detail::lexer<nlohmann::Json, nlohmann::detail::iterator_input_adapter<Input>>; \
  keyword class nlohmann::detail::parser<nlohmann::Json, nlohmann::detail::iterator_input_adapter<Input>>
#define SINEW_JSON_KIND(keyword, Json)                                          \
  keyword class nlohmann::detail::serializer<nlohmann::Json>;                   \
  keyword class nlohmann::detail::json_sax_dom_parser<nlohmann::Json>;          \
  keyword class nlohmann::detail::json_sax_dom_callback_parser<nlohmann::Json>; \
  SINEW_JSON_READER(keyword, Json, std::string::const_iterator);                \
  SINEW_JSON_READER(keyword, Json, const char*)
#define SINEW_JSON_TEMPLATES(keyword)                        \
  keyword class nlohmann::basic_json<>;                      \
  keyword class nlohmann::basic_json<nlohmann::ordered_map>; \
  SINEW_JSON_KIND(keyword, json);                            \
  SINEW_JSON_KIND(keyword, ordered_json)

SINEW_JSON_TEMPLATES(extern template);
