#include "train/fault.hpp"

#include <cstdlib>
#include <set>
#include <string>

#include "base/text.hpp"

namespace sinew {
namespace {

std::set<std::string> parse(std::string_view text) {
  const auto list = split(text, ',');
  return {list.begin(), list.end()};
}

std::set<std::string>& pending() {
  static std::set<std::string> faults = [] {
    const char* const set = std::getenv("SINEW_FAULT");
    return parse(set == nullptr ? "" : set);
  }();
  return faults;
}

}  // namespace

bool fault(std::string_view kind, std::int64_t step) {
  return pending().erase(std::string(kind) + "@" + std::to_string(step)) > 0;
}

void set_faults(std::string_view list) { pending() = parse(list); }

}  // namespace sinew
