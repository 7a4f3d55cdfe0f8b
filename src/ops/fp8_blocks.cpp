#include "ops/fp8_blocks.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "base/float_formats.hpp"
#include "base/threads.hpp"

namespace sinew {
namespace {

constexpr std::int64_t kTile = 128;
constexpr float kLargest = 448;

}  // namespace

Fp8Rows to_fp8_rows(const at::Tensor& x) {
  const auto source = x.detach().to(at::kCPU, at::kFloat).contiguous();
  const auto rows = source.size(0), width = source.size(1), tiles = (width + kTile - 1) / kTile;
  const auto codes = at::empty({rows, width}, at::TensorOptions(at::kByte));
  const auto scales = at::empty({rows, tiles}, at::TensorOptions(at::kFloat));
  const auto* const in = source.data_ptr<float>();
  auto* const code = codes.data_ptr<std::uint8_t>();
  auto* const scale = scales.data_ptr<float>();
  parallel_for(static_cast<std::size_t>(rows * tiles), 64, [&](std::size_t begin, std::size_t end) {
    for (auto t = static_cast<std::int64_t>(begin); t < static_cast<std::int64_t>(end); ++t) {
      const auto row = t / tiles, first = row * width + t % tiles * kTile;
      const auto last = std::min(first + kTile, (row + 1) * width);
      float largest = 0;
      for (auto i = first; i < last; ++i) largest = std::max(largest, std::abs(in[i]));
      const float step = largest > 0 ? largest / kLargest : 1;
      scale[t] = step;
      for (auto i = first; i < last; ++i) code[i] = float_to_float8_e4m3(in[i] / step);
    }
  });
  return {codes.to(x.device()), scales.to(x.device())};
}

at::Tensor from_fp8_rows(const Fp8Rows& rows, at::ScalarType type) {
  const auto codes = rows.codes.to(at::kCPU), scales = rows.scales.to(at::kCPU);
  const auto count = codes.size(0), width = codes.size(1), tiles = scales.size(1);
  const auto out = at::empty({count, width}, at::TensorOptions(at::kFloat));
  const auto* const code = codes.data_ptr<std::uint8_t>();
  const auto* const scale = scales.data_ptr<float>();
  auto* const values = out.data_ptr<float>();
  parallel_for(static_cast<std::size_t>(count), 16, [&](std::size_t begin, std::size_t end) {
    for (auto row = static_cast<std::int64_t>(begin); row < static_cast<std::int64_t>(end); ++row)
      for (std::int64_t i = 0; i < width; ++i)
        values[row * width + i] =
            float8_e4m3_to_float(code[row * width + i]) * scale[row * tiles + i / kTile];
  });
  return out.to(rows.codes.device(), type);
}

}  // namespace sinew
