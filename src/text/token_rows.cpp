#include "text/token_rows.hpp"

#include <cmath>
#include <nlohmann/json.hpp>

#include "base/error.hpp"

namespace sinew {
namespace {

using nlohmann::json;

json parse_bounded(const std::string& text, const std::string& origin) {
  int depth = 0;
  const auto bounded = [&](int, json::parse_event_t event, json&) {
    if (event == json::parse_event_t::object_start || event == json::parse_event_t::array_start) ++depth;
    if (event == json::parse_event_t::object_end || event == json::parse_event_t::array_end) --depth;
    require(depth <= 32, "{}: nested too deeply", origin);
    return true;
  };
  auto parsed = json::parse(text, bounded, false);
  require(!parsed.is_discarded(), "{}: not valid JSON", origin);
  return parsed;
}

}  // namespace

TokenRows read_token_rows(const fs::path& path) {
  const auto origin = path.string();
  auto parsed = parse_bounded(read_file(path), origin);
  if (parsed.is_object()) {
    require(parsed.contains("input_ids"), "{}: an object without \"input_ids\"", origin);
    parsed = json(parsed["input_ids"]);
  }
  require(parsed.is_array() && !parsed.empty(), "{}: no rows of token ids; write [[id, ..], ..]", origin);
  TokenRows rows;
  for (const auto& row : parsed) {
    require(row.is_array() && !row.empty(), "{}: row {} is not a list of token ids", origin, rows.size());
    const auto width = rows.empty() ? row.size() : rows[0].size();
    require(row.size() == width, "{}: row {} has {} tokens, row 0 has {}; all must be equal", origin,
            rows.size(), row.size(), width);
    std::vector<std::int64_t> ids;
    for (const auto& id : row) {
      require(id.is_number_integer() && id >= 0 && id <= INT32_MAX,
              "{}: row {} holds {}, which is not a token id", origin, rows.size(),
              id.dump(-1, ' ', true, json::error_handler_t::replace).substr(0, 40));
      ids.push_back(id.get<std::int64_t>());
    }
    rows.push_back(std::move(ids));
  }
  return rows;
}

void write_json_number(AtomicFile& file, float value) {
  file.write(std::isfinite(value) ? fmt::format("{}", value) : std::string("null"));
}

void write_json_row(AtomicFile& file, std::span<const float> row, bool first, bool last) {
  file.write(first ? "[[" : ",\n[");
  for (std::size_t i = 0; i < row.size(); ++i) {
    if (i > 0) file.write(",");
    write_json_number(file, row[i]);
  }
  file.write(last ? "]]" : "]");
}

}  // namespace sinew
