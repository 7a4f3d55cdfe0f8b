// A weight matrix as rows of floats, wherever it lies and however it is stored. Readers are pure functions of
// the row, so threads read different rows at once and nothing larger than the rows asked for is held.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

#include "storage/gguf.hpp"
#include "storage/safetensors.hpp"

namespace sinew {

struct RowSource {
  std::int64_t rows = 0, cols = 0;  // vectors have one row
  std::function<void(std::int64_t first, std::int64_t count, float* out)> read;
};

// A tensor of a Hugging Face directory, its leading dimensions flattened into rows. FP8 weights with a
// `<name>_scale_inv` beside them are multiplied by the scale of their 128 x 128 block, as DeepSeek-V3 is
// published. Throws UserError when it is absent or its shape is not `shape`.
RowSource hf_rows(const ModelWeights& weights, const std::string& name,
                  const std::vector<std::int64_t>& shape);

// A tensor of a GGUF file of any type in kernels/block_formats.hpp, dequantized.
RowSource gguf_rows(const Gguf& file, const GgufTensor& tensor);

// Reads all rows in order, on all threads, and gives them to `sink` after `encode` has made `row_bytes` bytes
// of each. Holds a few megabytes whatever the size of the tensor.
void stream_rows(const RowSource& source, std::size_t row_bytes,
                 const std::function<void(const float* rows, std::int64_t first, std::int64_t count,
                                          std::byte* out)>& encode,
                 const std::function<void(const std::byte* data, std::size_t bytes)>& sink);

}  // namespace sinew
