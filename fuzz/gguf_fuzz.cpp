// The GGUF header: no input may crash it, and what it accepts must lie within the file.
#include <cstdlib>
#include <span>

#include "base/error.hpp"
#include "storage/gguf.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::span file(reinterpret_cast<const std::byte*>(data), size);
  try {
    const sinew::GgufHeader header = sinew::parse_gguf(file, "fuzz");
    if (header.raw.size() != header.metadata.size()) std::abort();
    std::size_t length = 0;
    for (const auto& [key, value] : header.metadata) {
      const auto* array = std::get_if<sinew::GgufArray>(&value);
      if (array == nullptr) continue;
      for (const std::string_view text : array->strings)
        length += text.empty() ? 0 : static_cast<unsigned char>(text.back());
    }
    if (length > 255 * size) std::abort();
    for (const sinew::GgufTensor& tensor : header.tensors) {
      if (!header.metadata_only && tensor.offset + tensor.bytes > size && tensor.bytes > 0) std::abort();
    }
  } catch (const sinew::UserError&) {
  }
  return 0;
}
