// How well a model predicts a text.
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>

#include "engine/session.hpp"

namespace sinew::eval {

struct PerplexityOptions {
  std::int64_t window = 0;  // tokens the model sees at once; 0: 2048, or the model's longest if that is less
  std::int64_t stride = 0;  // tokens a window moves on; 0: half of it. Each token is scored once, with at
                            // least window - stride tokens before it where the text has them
  std::int64_t max_tokens = 0;  // of the text; 0: all
};

struct Perplexity {
  std::int64_t tokens = 0, scored = 0;  // of the text, and those with a token before them
  std::int64_t bytes = 0;               // of the scored tokens
  double nats = 0;                      // sum of -log p
  double seconds = 0;
  double per_token() const;  // exp of the mean
  double bits_per_byte() const;
  double standard_error() const;  // of the mean nats a token
  double squares = 0;             // sum of (-log p)^2
};

// `report` hears the number of tokens scored so far; false stops, and what has been scored is returned.
Perplexity perplexity(engine::Session& session, const Tokenizer& tokenizer, std::string_view text,
                      const PerplexityOptions& options, const std::function<bool(std::int64_t)>& report = {});

}  // namespace sinew::eval
