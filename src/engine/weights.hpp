// A weight matrix as the engine reads it: bytes of a mapped file in the format they are stored in, and beside
// them, where it pays, a repacked form for this processor.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "kernels/block_formats.hpp"
#include "kernels/gemm.hpp"

namespace sinew::engine {

// DeepSeek-V3's FP8 weights have a scale for each block of 128 x 128; everything else is a block format.
enum class Storage { blocks, f8_e4m3, f8_e5m2 };
inline constexpr index_t kFp8Block = 128;

// The same numbers laid out for the instruction set in use. Whoever repacks derives from it.
struct PackedWeights {
  virtual ~PackedWeights() = default;
  virtual std::size_t bytes() const = 0;  // held in memory
};

struct WeightMatrix {
  std::string name{};          // public name, for messages and calibration
  index_t rows = 0, cols = 0;  // [out, in]
  Storage storage = Storage::blocks;
  BlockFormat format = BlockFormat::f32;  // of blocks
  const std::byte* data = nullptr;        // row r at data + r * row_bytes; null: only `packed` is there
  std::size_t row_bytes = 0;
  const float* scales = nullptr;            // FP8: [ceil(rows / 128), ceil(cols / 128)]; null: 1
  std::shared_ptr<const void> owner{};      // of data and scales that are not in a mapped file
  std::shared_ptr<PackedWeights> packed{};  // null: read `data`

  bool present() const { return data != nullptr || packed != nullptr; }
  bool plain_f32() const { return storage == Storage::blocks && format == BlockFormat::f32; }
  std::size_t bytes() const { return static_cast<std::size_t>(rows) * row_bytes; }
};

// Rows [first, first + count) as floats: row r at out + (r - first) * ld.
void weight_rows(const WeightMatrix& w, index_t first, index_t count, float* out, index_t ld);

// Rows [first, first + count) as a matrix of their own (no copy; not of repacked or FP8 matrices whose first
// row is not at a block).
WeightMatrix row_range(const WeightMatrix& w, index_t first, index_t count);

// A matrix that the engine made itself, in `format`. `rows` rows of `cols` floats.
WeightMatrix own_matrix(std::string name, index_t rows, index_t cols, const float* values,
                        BlockFormat format);

}  // namespace sinew::engine
