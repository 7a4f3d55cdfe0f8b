// Small helpers for the words people read: nearest names, sizes, counts, durations.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace sinew {

// The candidate with the smallest edit distance to `name`, or "" when none is close (over half of
// the name's letters differ).
std::string nearest_name(std::string_view name, std::span<const std::string> candidates);

// `; did you mean "x"?`, or "" when nothing is close.
std::string did_you_mean(std::string_view name, std::span<const std::string> candidates);

std::string human_bytes(double bytes);         // "1.50 GiB"
std::string human_count(double count);         // "15.7B", "2.40M", "812"
std::string human_seconds(double seconds);     // "2h03m", "4m10s", "3.2s"
std::string with_commas(std::uint64_t value);  // "15,706,484,224"

std::vector<std::string> split(std::string_view text, char separator);
std::string join(std::span<const std::string> parts, std::string_view separator);

// True when the bytes are valid UTF-8 (no surrogates, no overlong forms).
bool valid_utf8(std::string_view bytes);

}  // namespace sinew
