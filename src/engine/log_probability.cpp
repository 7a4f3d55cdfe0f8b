#include "engine/log_probability.hpp"

#include <algorithm>
#include <cmath>

namespace sinew::engine {

double log_probability(std::span<const float> logits, TokenId id) {
  const float top = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float x : logits) sum += std::exp(static_cast<double>(x) - top);
  return static_cast<double>(logits[static_cast<std::size_t>(id)]) - top - std::log(sum);
}

}  // namespace sinew::engine
