// Counter-based random numbers (Philox4x32-10, Salmon et al., SC 2011). A value is a pure function of
// (seed, stream, index), so no result depends on the order or the number of threads or ranks.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace sinew {

// Four 32-bit words for one counter.
std::array<std::uint32_t, 4> philox(std::uint64_t key, std::uint64_t counter_high, std::uint64_t counter_low);

// A stream of numbers addressed by index. The stream's name (a tensor's, say) is hashed with FNV-1a.
class Random {
 public:
  Random(std::uint64_t seed, std::uint64_t stream) : seed_(seed), stream_(stream) {}
  Random(std::uint64_t seed, std::string_view stream_name);

  std::uint64_t bits(std::uint64_t index) const;                        // 64 random bits
  double uniform(std::uint64_t index) const;                            // [0, 1), 53 bits
  double normal(std::uint64_t index) const;                             // mean 0, deviation 1 (Box-Muller)
  std::uint64_t below(std::uint64_t index, std::uint64_t bound) const;  // [0, bound), bound > 0

  // out[i] = mean + stddev * normal(first + i), for i in [0, count).
  void fill_normal(float* out, std::uint64_t first, std::uint64_t count, float mean, float stddev) const;

 private:
  std::uint64_t seed_, stream_;
};

std::uint64_t hash_name(std::string_view name);  // FNV-1a, 64 bits; stable for ever

// A bijection of [0, size) chosen by `key`: a shuffle that needs no memory (Feistel network with cycle
// walking).
class Permutation {
 public:
  Permutation(std::uint64_t size, std::uint64_t key);
  std::uint64_t operator()(std::uint64_t index) const;
  std::uint64_t size() const { return size_; }

 private:
  std::uint64_t size_, key_;
  unsigned half_bits_;
};

}  // namespace sinew
