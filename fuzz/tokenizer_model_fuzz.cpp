// SentencePiece's tokenizer.model: no input may crash the reader, and with all byte pieces what it
// accepts must encode any bytes.
#include <string_view>

#include "base/error.hpp"
#include "text/sentencepiece.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  try {
    const auto tokenizer = sinew::parse_sentencepiece(bytes, "", "fuzz");
    for (const std::string_view text :
         {std::string_view(" ab abc  <s>\n12 \xC3\xA9 \xFF"), bytes.substr(0, 64)}) {
      const auto ids = tokenizer->encode(text, true);
      tokenizer->decode(ids);
      tokenizer->decode(ids, true);
    }
  } catch (const sinew::UserError&) {
  }
  return 0;
}
