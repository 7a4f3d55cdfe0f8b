#include "ops/fp8_blocks.hpp"

#include <ATen/ATen.h>

#include "base/float_formats.hpp"
#include "base/threads.hpp"
#include "ops/fp8_tiles.hpp"

namespace sinew {

Fp8Rows to_fp8_rows(const at::Tensor& x) {
  const auto source = x.detach().to(at::kCPU, at::kFloat).contiguous();
  const auto rows = source.size(0), width = source.size(1);
  const auto codes = at::empty({rows, width}, at::TensorOptions(at::kByte));
  const auto scales = at::empty({rows, fp8_tiles_in(width)}, at::TensorOptions(at::kFloat));
  round_to_fp8_tiles(source.data_ptr<float>(), rows, width, 1, codes.data_ptr<std::uint8_t>(),
                     scales.data_ptr<float>(), float_to_float8_e4m3);
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
            float8_e4m3_to_float(code[row * width + i]) * scale[row * tiles + i / kFp8Tile];
  });
  return out.to(rows.codes.device(), type);
}

}  // namespace sinew
