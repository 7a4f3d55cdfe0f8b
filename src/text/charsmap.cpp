#include "text/charsmap.hpp"

#include <cstring>

#include "base/error.hpp"

namespace sinew {
namespace {

std::uint32_t little_endian(const char* bytes) {
  std::uint32_t value = 0;
  for (unsigned i = 0; i < 4; ++i)
    value |= static_cast<std::uint32_t>(static_cast<unsigned char>(bytes[i])) << (8 * i);
  return value;
}

// Darts-clone's unit: label in the low byte, offset above, whether a value hangs here in bit 8.
std::uint32_t offset_of(std::uint32_t unit) { return (unit >> 10) << ((unit & (1u << 9)) >> 6); }

}  // namespace

CharsMap::CharsMap(std::string_view blob, const std::string& origin) {
  require(blob.size() > 4, "{}: the normalization rules are cut short", origin);
  const std::uint32_t size = little_endian(blob.data());
  require(size < blob.size() - 4 && size % 4 == 0 && size > 0, "{}: the normalization rules are damaged",
          origin);
  units_.resize(size / 4);
  for (std::size_t i = 0; i < units_.size(); ++i) units_[i] = little_endian(blob.data() + 4 + 4 * i);
  replacements_ = blob.substr(4 + size);
}

std::size_t CharsMap::match(std::string_view text, std::string_view& replacement) const {
  if (units_.empty()) return 0;
  std::size_t longest = 0;
  std::size_t node = offset_of(units_[0]);
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    node ^= byte;
    if (node >= units_.size()) break;
    const std::uint32_t unit = units_[node];
    if ((unit & ((1u << 31) | 0xFF)) != byte) break;
    node ^= offset_of(unit);
    if (((unit >> 8) & 1) == 0 || node >= units_.size()) continue;
    const std::size_t value = units_[node] & ((1u << 31) - 1);
    if (value >= replacements_.size()) continue;
    const std::size_t end = replacements_.find('\0', value);
    longest = i + 1;
    replacement = std::string_view(replacements_).substr(value, end == std::string::npos ? end : end - value);
  }
  return longest;
}

}  // namespace sinew
