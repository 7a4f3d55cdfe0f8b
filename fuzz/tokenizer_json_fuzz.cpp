// tokenizer.json: no input may crash the reader, and what it accepts must encode and decode any bytes.
#include <string_view>

#include "base/error.hpp"
#include "text/tokenizer_json.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view json(reinterpret_cast<const char*>(data), size);
  try {
    const auto tokenizer = sinew::parse_tokenizer_json(json, "", "fuzz");
    for (const std::string_view text :
         {std::string_view("ab abc  <end>\n12 \xC3\xA9 \xFF"), json.substr(0, 64)}) {
      const auto ids = tokenizer->encode(text, true);
      tokenizer->decode(ids);
      for (const sinew::TokenId id : ids) tokenizer->token_text(id);
    }
  } catch (const sinew::UserError&) {
  }
  return 0;
}
