// Text that a model writes, to look at while it learns.
#pragma once

#include <cstdint>
#include <string>

#include "model/language_model.hpp"
#include "text/tokenizer.hpp"

namespace sinew {

// The prompt and `tokens` tokens after it (fewer at an end-of-text token or at max_position_embeddings).
// Temperature 0 takes the likeliest; otherwise a pure function of (seed, position).
std::string sample_text(LanguageModel& model, const Tokenizer& tokenizer, const std::string& prompt,
                        std::int64_t tokens, double temperature, std::uint64_t seed, at::Device device);

}  // namespace sinew
