// UTF-8 one character at a time, over bytes that need not be valid.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace sinew {

struct Utf8Char {
  char32_t code;        // the code point, or the byte itself where it is not valid UTF-8
  std::uint8_t length;  // bytes it takes in the text; 1 where invalid
  bool valid;
};

// The character at `at` < text.size(). A byte that starts no valid sequence stands alone.
Utf8Char utf8_at(std::string_view text, std::size_t at);

void append_utf8(std::string& out, char32_t code);

// Unicode's White_Space property (PropList.txt; unchanged since Unicode 6.3).
bool is_white_space(char32_t code);

// valid_utf8 of base/text.hpp with a short way through ASCII.
bool valid_utf8_fast(std::string_view text);

// Calls visit(run, valid) on maximal runs of valid UTF-8 and of bytes that are not.
template <class Visit>
void each_utf8_run(std::string_view text, Visit&& visit) {
  std::size_t begin = 0;
  bool valid = true;
  for (std::size_t i = 0; i < text.size();) {
    const Utf8Char c = utf8_at(text, i);
    if (c.valid != valid) {
      if (i > begin) visit(text.substr(begin, i - begin), valid);
      begin = i;
      valid = c.valid;
    }
    i += c.length;
  }
  if (begin < text.size()) visit(text.substr(begin), valid);
}

}  // namespace sinew
