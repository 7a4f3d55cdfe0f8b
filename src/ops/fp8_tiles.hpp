// The rounding to 8 bits that the FP8 recipe and the exchange of tokens share (DeepSeek-V3 section 3.3.2).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "base/threads.hpp"

namespace sinew {

inline constexpr std::int64_t kFp8Tile = 128;
inline constexpr std::int64_t fp8_tiles_in(std::int64_t columns) {
  return (columns + kFp8Tile - 1) / kFp8Tile;
}

// x [rows, columns] in tiles of `height` x 128: codes[i] = encode(x[i] / scale), where the scale maps the
// largest magnitude of a tile to 448, the largest of E4M3 (1 for tiles of zeros). scales [rows,
// fp8_tiles_in(columns)].
template <class Code, class Encode>
void round_to_fp8_tiles(const float* x, std::int64_t rows, std::int64_t columns, std::int64_t height,
                        Code* codes, float* scales, const Encode& encode) {
  const auto tiles = fp8_tiles_in(columns), bands = (rows + height - 1) / height;
  const std::size_t grain = height < 64 ? 64 / static_cast<std::size_t>(height) : 1;
  parallel_for(static_cast<std::size_t>(bands * tiles), grain, [&](std::size_t begin, std::size_t end) {
    for (auto t = static_cast<std::int64_t>(begin); t < static_cast<std::int64_t>(end); ++t) {
      const auto row0 = t / tiles * height, row1 = std::min(rows, row0 + height);
      const auto column0 = t % tiles * kFp8Tile, column1 = std::min(columns, column0 + kFp8Tile);
      float largest = 0;
      for (auto r = row0; r < row1; ++r)
        for (auto c = column0; c < column1; ++c) largest = std::max(largest, std::abs(x[r * columns + c]));
      const float step = largest > 0 ? largest / 448 : 1;
      for (auto r = row0; r < row1; ++r) {
        scales[r * tiles + t % tiles] = step;
        for (auto c = column0; c < column1; ++c) codes[r * columns + c] = encode(x[r * columns + c] / step);
      }
    }
  });
}

}  // namespace sinew
