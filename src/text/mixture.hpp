// Which source the n-th sample comes from, when several are mixed by weight.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace sinew {

// A periodic sequence in which, after any number of samples n, each source has had n times its share
// to within less than one sample (Tijdeman's rule for the chairman assignment problem, Discrete
// Mathematics 32, 1980). Shares are the weights as fractions of the smallest fitting denominator up to
// 4096, else of 2^20.
class Mixture {
 public:
  explicit Mixture(std::span<const double> weights);  // all positive and finite, else UserError

  struct Pick {
    std::size_t source;
    std::uint64_t ordinal;  // how many samples the source gave before
  };
  Pick operator()(std::uint64_t n) const;
  double share(std::size_t source) const;  // of the samples

 private:
  std::vector<std::uint64_t> per_period_;  // [sources]
  std::vector<std::uint16_t> source_;      // [period]
  std::vector<std::uint32_t> ordinal_;     // [period], within it
};

}  // namespace sinew
