#include "train/fault.hpp"

#include <cstdlib>
#include <set>
#include <string>

#include "base/text.hpp"

namespace sinew {

bool fault(std::string_view kind, std::int64_t step) {
  static std::set<std::string> pending = [] {
    const char* const set = std::getenv("SINEW_FAULT");
    const auto list = split(set == nullptr ? "" : set, ',');
    return std::set<std::string>(list.begin(), list.end());
  }();
  return pending.erase(std::string(kind) + "@" + std::to_string(step)) > 0;
}

}  // namespace sinew
