// Normal forms and case of Unicode text, by utf8proc. Bytes that are not valid UTF-8 pass through.
#pragma once

#include <string>
#include <string_view>

namespace sinew {

enum class NormalForm { nfc, nfd, nfkc, nfkd };

std::string normal_form(std::string_view text, NormalForm form);
std::string lowercase(std::string_view text);    // each character alone, full mapping
std::string strip_marks(std::string_view text);  // without characters of category M

}  // namespace sinew
