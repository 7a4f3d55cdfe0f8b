// The safetensors header: no input may crash it, and what it accepts must lie within the file.
#include <cstdlib>
#include <span>

#include "base/error.hpp"
#include "storage/safetensors.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::span file(reinterpret_cast<const std::byte*>(data), size);
  try {
    const sinew::SafetensorsHeader header = sinew::parse_safetensors(file, "fuzz");
    for (const sinew::TensorInfo& tensor : header.tensors) {
      if (header.data_offset + tensor.offset + tensor.bytes > size) std::abort();
      if (tensor.dtype > sinew::DType::F64) continue;
      float first = 0;
      if (tensor.elements() > 0)
        sinew::to_float(tensor.dtype, file.data() + header.data_offset + tensor.offset, &first, 1);
    }
  } catch (const sinew::UserError&) {
  }
  return 0;
}
