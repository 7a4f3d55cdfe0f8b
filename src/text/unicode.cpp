#include "text/unicode.hpp"

#include <utf8proc.h>

#include <cstdlib>
#include <new>

#include "text/utf8.hpp"

namespace sinew {
namespace {

bool is_ascii(std::string_view text) {
  for (const char c : text)
    if (static_cast<unsigned char>(c) >= 0x80) return false;
  return true;
}

utf8proc_option_t options(NormalForm form) {
  const int stable = UTF8PROC_STABLE;
  switch (form) {
    case NormalForm::nfc:
      return static_cast<utf8proc_option_t>(stable | UTF8PROC_COMPOSE);
    case NormalForm::nfd:
      return static_cast<utf8proc_option_t>(stable | UTF8PROC_DECOMPOSE);
    case NormalForm::nfkc:
      return static_cast<utf8proc_option_t>(stable | UTF8PROC_COMPOSE | UTF8PROC_COMPAT);
    case NormalForm::nfkd:
      break;
  }
  return static_cast<utf8proc_option_t>(stable | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT);
}

template <class Map>
std::string map_chars(std::string_view text, Map&& map) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size();) {
    const Utf8Char c = utf8_at(text, i);
    if (c.valid)
      map(c.code, out);
    else
      out.push_back(text[i]);
    i += c.length;
  }
  return out;
}

}  // namespace

std::string normal_form(std::string_view text, NormalForm form) {
  if (is_ascii(text)) return std::string(text);
  std::string out;
  out.reserve(text.size());
  each_utf8_run(text, [&](std::string_view run, bool valid) {
    if (!valid || is_ascii(run)) {
      out += run;
      return;
    }
    utf8proc_uint8_t* mapped = nullptr;
    const auto size = utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(run.data()),
                                   static_cast<utf8proc_ssize_t>(run.size()), &mapped, options(form));
    if (size < 0) throw std::bad_alloc();  // the input is valid: nothing else can fail
    out.append(reinterpret_cast<const char*>(mapped), static_cast<std::size_t>(size));
    std::free(mapped);
  });
  return out;
}

std::string lowercase(std::string_view text) {
  return map_chars(text, [](char32_t code, std::string& out) {
    if (code == 0x130)
      out += "i\xCC\x87";  // the only character whose lower case is two
    else
      append_utf8(out, static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(code))));
  });
}

std::string strip_marks(std::string_view text) {
  return map_chars(text, [](char32_t code, std::string& out) {
    const auto category = utf8proc_category(static_cast<utf8proc_int32_t>(code));
    if (category != UTF8PROC_CATEGORY_MN && category != UTF8PROC_CATEGORY_MC &&
        category != UTF8PROC_CATEGORY_ME)
      append_utf8(out, code);
  });
}

}  // namespace sinew
