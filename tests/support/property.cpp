#include "support/property.hpp"

#include <gtest/gtest.h>

#include <sstream>

#include <rapidcheck.h>

namespace sinew::test {

void check_property(const char* what, const std::function<void()>& body) {
  rc::detail::TestMetadata about;
  about.id = what;
  about.description = what;
  const auto result = rc::detail::checkTestable(body, about);
  if (result.is<rc::detail::SuccessResult>()) return;
  std::ostringstream text;
  rc::detail::printResultMessage(result, text);
  ADD_FAILURE() << what << "\n" << text.str();
}

std::int64_t draw_integer(std::int64_t low, std::int64_t end) {
  return *rc::gen::inRange<std::int64_t>(low, end);
}

std::uint64_t draw_bits() { return *rc::gen::arbitrary<std::uint64_t>(); }

bool draw_bool() { return *rc::gen::arbitrary<bool>(); }

std::size_t draw_index(std::size_t size) {
  return *rc::gen::resize(rc::kNominalSize, rc::gen::inRange<std::size_t>(0, size));
}

std::size_t draw_length() {
  return *rc::gen::withSize(
      [](int size) { return rc::gen::inRange<std::size_t>(0, static_cast<std::size_t>(size) + 1); });
}

std::string draw_bytes() { return *rc::gen::container<std::string>(rc::gen::arbitrary<char>()); }

std::string draw_text(std::string_view letters) {
  return *rc::gen::container<std::string>(rc::gen::elementOf(std::string(letters)));
}

std::string draw_text(std::string_view letters, std::size_t length) {
  return *rc::gen::container<std::string>(length, rc::gen::elementOf(std::string(letters)));
}

std::ostream& case_log() { return rc::detail::log(); }

void fail_case(const char* file, int line, const char* what) {
  RC_FAIL(std::string(file) + ":" + std::to_string(line) + ": " + what);
}

void assume(bool condition) { RC_PRE(condition); }

}  // namespace sinew::test
