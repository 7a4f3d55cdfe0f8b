// The byte-level alphabet of GPT-2 (its encoder.py, bytes_to_unicode): each byte is written as one
// printable character, so that a vocabulary of characters covers every byte string.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace sinew {

char32_t byte_to_char(std::uint8_t byte);
int char_to_byte(char32_t code);  // -1 when the character is not of the alphabet

std::string bytes_to_chars(std::string_view bytes);
// False, and `bytes` unchanged, when a character is not of the alphabet.
bool chars_to_bytes(std::string_view chars, std::string& bytes);

// The bytes in the order in which GPT-2 numbers them: printable ones first.
std::string byte_alphabet_order();

}  // namespace sinew
