#include "quant/row_source.hpp"

#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "base/error.hpp"
#include "base/map_pages.hpp"
#include "base/text.hpp"
#include "base/threads.hpp"
#include "kernels/block_formats.hpp"

namespace sinew {
namespace {

constexpr std::int64_t kFp8Block = 128;
constexpr std::int64_t kTaskElements = 1 << 18;  // floats that one task of stream_rows holds

std::string shape_text(const std::vector<std::int64_t>& shape) {
  std::vector<std::string> parts;
  for (const std::int64_t dim : shape) parts.push_back(std::to_string(dim));
  return "[" + join(parts, ", ") + "]";
}

// The scales of a block-scaled FP8 weight [rows, cols]: [ceil(rows / 128), ceil(cols / 128)].
std::vector<float> fp8_scales(const ModelWeights& weights, const std::string& name, std::int64_t rows,
                              std::int64_t cols) {
  const TensorInfo* info = weights.find(name);
  if (info == nullptr) return {};
  const std::vector<std::int64_t> expected{(rows + kFp8Block - 1) / kFp8Block,
                                           (cols + kFp8Block - 1) / kFp8Block};
  require(info->shape == expected, "tensor '{}' has shape {}, expected {} (blocks of {} x {})", name,
          shape_text(info->shape), shape_text(expected), kFp8Block, kFp8Block);
  std::vector<float> scales(static_cast<std::size_t>(info->elements()));
  to_float(info->dtype, weights.data(name).data(), scales.data(), scales.size());
  return scales;
}

void scale_blocks(const std::vector<float>& scales, std::int64_t cols, std::int64_t first, std::int64_t count,
                  float* out) {
  const std::int64_t blocks = (cols + kFp8Block - 1) / kFp8Block;
  for (std::int64_t row = 0; row < count; ++row) {
    const float* row_scales = scales.data() + (first + row) / kFp8Block * blocks;
    for (std::int64_t col = 0; col < cols; ++col) out[row * cols + col] *= row_scales[col / kFp8Block];
  }
}

// Else the whole file stays in memory while it is streamed. (Of small pieces nothing goes: rows are then
// asked for one by one.)
void give_back(const std::byte* data, std::size_t bytes) {
  constexpr std::size_t kLeast = std::size_t{64} << 10;
  if (bytes >= kLeast) give_back_pages(data, bytes);
}

}  // namespace

RowSource hf_rows(const ModelWeights& weights, const std::string& name,
                  const std::vector<std::int64_t>& shape) {
  const TensorInfo* info = weights.find(name);
  require(info != nullptr, "no tensor '{}' in the model's files", name);
  require(info->shape == shape, "tensor '{}' has shape {}, the config asks for {}", name,
          shape_text(info->shape), shape_text(shape));
  RowSource source;
  source.cols = shape.empty() ? 1 : shape.back();
  source.rows = source.cols == 0 ? 0 : info->elements() / source.cols;
  const DType dtype = info->dtype;
  const std::byte* const data = weights.data(name).data();
  const std::size_t row_bytes = static_cast<std::size_t>(source.cols) * dtype_size(dtype);
  const bool fp8 = dtype == DType::F8_E4M3 || dtype == DType::F8_E5M2;
  auto scales = std::make_shared<std::vector<float>>();
  if (fp8 && shape.size() == 2) *scales = fp8_scales(weights, name + "_scale_inv", shape[0], shape[1]);
  source.read = [dtype, data, row_bytes, cols = source.cols, scales](std::int64_t first, std::int64_t count,
                                                                     float* out) {
    const std::byte* const from = data + static_cast<std::size_t>(first) * row_bytes;
    to_float(dtype, from, out, static_cast<std::size_t>(count * cols));
    give_back(from, static_cast<std::size_t>(count) * row_bytes);
    if (!scales->empty()) scale_blocks(*scales, cols, first, count, out);
  };
  return source;
}

RowSource gguf_rows(const Gguf& file, const GgufTensor& tensor) {
  const BlockInfo* info = find_block_format(tensor.type);
  require(info != nullptr, "{}: tensor '{}' is of type {}, which Sinew does not compute with",
          file.path().string(), tensor.name, ggml_type(tensor.type)->name);
  RowSource source;
  source.cols = tensor.shape.empty() ? 1 : tensor.shape[0];
  source.rows = source.cols == 0 ? 0 : tensor.elements() / source.cols;
  const std::size_t row_bytes = block_bytes(info->format, static_cast<std::size_t>(source.cols));
  source.read = [format = info->format, data = file.data(tensor).data(), row_bytes, cols = source.cols](
                    std::int64_t first, std::int64_t count, float* out) {
    const std::byte* const from = data + static_cast<std::size_t>(first) * row_bytes;
    dequantize(format, from, out, static_cast<std::size_t>(count * cols));
    give_back(from, static_cast<std::size_t>(count) * row_bytes);
  };
  return source;
}

void stream_rows(const RowSource& source, std::size_t row_bytes,
                 const std::function<void(const float*, std::int64_t, std::int64_t, std::byte*)>& encode,
                 const std::function<void(const std::byte*, std::size_t)>& sink) {
  const std::int64_t task_rows =
      std::max<std::int64_t>(1, kTaskElements / std::max<std::int64_t>(1, source.cols));
  const std::int64_t batch_rows = task_rows * default_threads() * 4;
  std::vector<std::byte> encoded(static_cast<std::size_t>(std::min(batch_rows, source.rows)) * row_bytes);
  for (std::int64_t begin = 0; begin < source.rows; begin += batch_rows) {
    const std::int64_t rows = std::min(batch_rows, source.rows - begin),
                       tasks = (rows + task_rows - 1) / task_rows;
    parallel_for(static_cast<std::size_t>(tasks), 1, [&](std::size_t first_task, std::size_t last_task) {
      std::vector<float> values(static_cast<std::size_t>(task_rows * source.cols));
      for (std::size_t task = first_task; task < last_task; ++task) {
        const std::int64_t at = static_cast<std::int64_t>(task) * task_rows,
                           count = std::min(task_rows, rows - at);
        source.read(begin + at, count, values.data());
        encode(values.data(), begin + at, count, encoded.data() + static_cast<std::size_t>(at) * row_bytes);
      }
    });
    sink(encoded.data(), static_cast<std::size_t>(rows) * row_bytes);
  }
}

}  // namespace sinew
