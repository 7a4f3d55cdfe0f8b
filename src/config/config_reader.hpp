// Reading one JSON object of a config.json: typed, bounded, and with errors that name file and field.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.hpp"

namespace sinew {

using Json = nlohmann::ordered_json;

// Text from a file made fit for one line of a message: control bytes and invalid UTF-8 as \xNN, cut.
std::string printable(std::string_view text, std::size_t limit = 60);

// Bounds of sizes: far above any real model, low enough that no product of them overflows where it counts.
inline constexpr std::int64_t kMaxSize = std::int64_t{1} << 24;
inline constexpr std::int64_t kMaxPositions = std::int64_t{1} << 40;

// A key and the other names it goes by; the first that the file has is read.
using Names = std::initializer_list<std::string_view>;

class ConfigReader {
 public:
  // `prefix` names the object within the file ("rope_scaling."). Both must outlive the reader.
  ConfigReader(const Json& object, std::string origin, std::string prefix = "");

  bool has(std::string_view key) const;  // present and not null
  bool mentions(std::string_view key) const { return object_.contains(key); }

  std::int64_t integer(Names names, std::int64_t low, std::int64_t high = kMaxSize) const;  // required
  std::int64_t integer_or(Names names, std::int64_t fallback, std::int64_t low,
                          std::int64_t high = kMaxSize) const;
  double number(Names names, double low, double high) const;  // required
  double number_or(Names names, double fallback, double low, double high) const;
  bool boolean_or(std::string_view key, bool fallback) const;
  std::string text(std::string_view key) const;  // required
  std::string text_or(std::string_view key, std::string_view fallback) const;
  // A number, a list of numbers or null.
  std::vector<std::int64_t> integers(std::string_view key, std::int64_t low, std::int64_t high) const;
  ConfigReader object(std::string_view key) const;                     // required
  void all_equal(std::string_view key, std::string_view value) const;  // a list that may hold nothing else

  void refuse_objects(std::string_view why) const;  // no value of this object may be an object

  // "<origin>: <prefix><key> <what>".
  template <class... Args>
  [[noreturn]] void bad(std::string_view key, fmt::format_string<Args...> what, Args&&... args) const {
    fail("{}: {}{} {}", origin_, prefix_, key, fmt::format(what, std::forward<Args>(args)...));
  }
  template <class... Args>
  void check(bool ok, std::string_view key, fmt::format_string<Args...> what, Args&&... args) const {
    if (!ok) bad(key, what, std::forward<Args>(args)...);
  }
  [[noreturn]] void missing(std::string_view key) const;  // with a hint where a key looks misspelled
  const std::string& origin() const { return origin_; }

 private:
  const Json& object_;
  std::string origin_, prefix_;
  std::string_view find(Names names) const;  // the first name present and not null, else ""
};

// Whether any family knows this key of a config.json (others are tolerated, and hinted at as misspellings).
bool known_config_key(std::string_view key);

}  // namespace sinew
