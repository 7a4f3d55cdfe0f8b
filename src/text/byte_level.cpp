#include "text/byte_level.hpp"

#include <array>

#include "text/utf8.hpp"

namespace sinew {
namespace {

struct Alphabet {
  std::array<char32_t, 256> character{};
  std::array<std::int16_t, 512> byte{};
  std::string order;

  Alphabet() {
    byte.fill(-1);
    const auto printable = [](unsigned b) { return (b >= '!' && b <= '~') || (b >= 0xA1 && b != 0xAD); };
    const auto add = [&](unsigned b, char32_t c) {
      character[b] = c;
      byte[c] = static_cast<std::int16_t>(b);
      order.push_back(static_cast<char>(b));
    };
    for (unsigned b = 0; b < 256; ++b)
      if (printable(b)) add(b, b);
    char32_t next = 256;
    for (unsigned b = 0; b < 256; ++b)
      if (!printable(b)) add(b, next++);
  }
};

const Alphabet& alphabet() {
  static const Alphabet table;
  return table;
}

}  // namespace

char32_t byte_to_char(std::uint8_t byte) { return alphabet().character[byte]; }

int char_to_byte(char32_t code) { return code < 512 ? alphabet().byte[code] : -1; }

std::string bytes_to_chars(std::string_view bytes) {
  std::string chars;
  for (const char byte : bytes) append_utf8(chars, byte_to_char(static_cast<std::uint8_t>(byte)));
  return chars;
}

bool chars_to_bytes(std::string_view chars, std::string& bytes) {
  std::string decoded;
  for (std::size_t i = 0; i < chars.size();) {
    const Utf8Char c = utf8_at(chars, i);
    const int byte = c.valid ? char_to_byte(c.code) : -1;
    if (byte < 0) return false;
    decoded.push_back(static_cast<char>(byte));
    i += c.length;
  }
  bytes += decoded;
  return true;
}

std::string byte_alphabet_order() { return alphabet().order; }

}  // namespace sinew
