// Random blocks of any format: all bits random but for the fp16 scales, which are small numbers.
#pragma once

#include <cstring>
#include <vector>

#include "base/float_formats.hpp"
#include "kernels/kernel_support.hpp"
#include "kernels/packed.hpp"

namespace sinew::test {

inline std::vector<BlockFormat> packable_formats() {
  std::vector<BlockFormat> list;
  for (const BlockInfo& info : block_formats())
    if (packable(info.format)) list.push_back(info.format);
  return list;
}

inline std::vector<std::byte> random_blocks(BlockFormat format, index_t rows, index_t cols,
                                            std::uint64_t seed) {
  const Random random(seed, "random blocks");
  std::vector<std::byte> out(block_bytes(format, static_cast<std::size_t>(rows * cols)));
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = static_cast<std::byte>(random.bits(i) & 255);
  const std::size_t bytes = block_info(format).bytes;
  const HalfPlaces places = half_places(format);
  for (std::size_t block = 0; block < out.size(); block += bytes)
    for (const int at : {places.scale, places.minimum}) {
      if (at < 0) continue;
      const auto place = static_cast<std::size_t>(at);
      const double value = 0.01 + 0.02 * random.uniform(out.size() + block + place);
      const std::uint16_t half = float_to_half(static_cast<float>(block / bytes % 3 == 0 ? value : -value));
      std::memcpy(out.data() + block + place, &half, 2);
    }
  return out;
}

inline std::vector<float> dequantized(BlockFormat format, const std::vector<std::byte>& blocks,
                                      index_t count) {
  std::vector<float> out(static_cast<std::size_t>(count));
  dequantize(format, blocks.data(), out.data(), out.size());
  return out;
}

// Aligned as the kernels want it.
template <class T>
struct Aligned {
  explicit Aligned(index_t count) : memory(static_cast<std::size_t>(count) + 64 / sizeof(T)) {}
  T* data() {
    const auto at = reinterpret_cast<std::uintptr_t>(memory.data());
    return memory.data() + ((at + 63) / 64 * 64 - at) / sizeof(T);
  }
  std::vector<T> memory;
};

}  // namespace sinew::test
