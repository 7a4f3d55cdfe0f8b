// Properties of random cases. rapidcheck draws the cases and shrinks one that fails; it is templates
// throughout and costs 3 s in every test that sees it, so property.cpp alone does.
//
//   PROPERTY(Permutation, IsABijection) {
//     const auto size = test::draw<std::uint64_t>(1, 3000);
//     ...
//     HOLDS(seen.size() == size);
//   }
#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <ostream>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace sinew::test {

// Runs `body` on a hundred cases; a test failure with the smallest case found if one does not hold. The
// environment's RC_PARAMS is rapidcheck's: "seed=.. max_success=..".
void check_property(const char* what, const std::function<void()>& body);

// For bodies.
std::int64_t draw_integer(std::int64_t low,
                          std::int64_t end);  // in [low, end); small steps from low come first
std::uint64_t draw_bits();                    // any 64 bits
bool draw_bool();
std::size_t draw_index(std::size_t size);  // below size, all alike
std::size_t draw_length();                 // of a list: grows from case to case, up to 100
std::string draw_bytes();
std::string draw_text(std::string_view letters);
std::string draw_text(std::string_view letters, std::size_t length);

template <typename T = int>
T draw(std::type_identity_t<T> low, std::type_identity_t<T> end) {
  return static_cast<T>(draw_integer(static_cast<std::int64_t>(low), static_cast<std::int64_t>(end)));
}
template <typename List>
auto draw_from(const List& values) {
  return values[draw_index(values.size())];
}
template <typename T>
T draw_of(std::initializer_list<T> values) {
  return values.begin()[draw_index(values.size())];
}
// `count` elements that `element()` draws.
template <typename Element>
auto draw_list(std::size_t count, Element&& element) {
  std::vector<std::invoke_result_t<Element>> list;
  for (std::size_t i = 0; i < count; ++i) list.push_back(element());
  return list;
}

std::ostream& case_log();  // printed if the case fails
[[noreturn]] void fail_case(const char* file, int line, const char* what);
void assume(bool condition);  // else another case is drawn

}  // namespace sinew::test

#define HOLDS(...) \
  ((__VA_ARGS__) ? static_cast<void>(0) : sinew::test::fail_case(__FILE__, __LINE__, #__VA_ARGS__))

#define PROPERTY(suite, name)                                                          \
  static void property_##suite##_##name();                                             \
  TEST(suite, name) { sinew::test::check_property(#name, property_##suite##_##name); } \
  static void property_##suite##_##name()
