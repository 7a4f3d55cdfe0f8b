// Log probabilities out of logits.
#pragma once

#include <span>

#include "text/tokenizer.hpp"

namespace sinew::engine {

// log softmax(logits)[id], summed in doubles.
double log_probability(std::span<const float> logits, TokenId id);

}  // namespace sinew::engine
