// The tile registers' configuration. Include only in a file that is compiled for AMX; internal linkage.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace sinew {
namespace {

struct TileConfig {  // Intel SDM volume 1, 18.2
  std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
  std::uint16_t bytes_per_row[16] = {};
  std::uint8_t rows[16] = {};
};

// Eight tiles of 16 rows of 64 bytes. The intrinsic tells the compiler of only 8 of the 64 bytes read.
void configure_tiles() {
  TileConfig config;
  for (int i = 0; i < 8; ++i) {
    config.bytes_per_row[i] = 64;
    config.rows[i] = 16;
  }
  asm volatile("ldtilecfg %0" ::"m"(config));
}

// GCC's tile intrinsics do not say that they read and write memory: between them and other uses of the same
// memory the compiler must be told.
[[maybe_unused, gnu::always_inline]] inline void order_memory() { asm volatile("" ::: "memory"); }

void release_tiles() { _tile_release(); }

}  // namespace
}  // namespace sinew
