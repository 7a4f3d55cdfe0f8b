// Text after a prompt, one token at a time.
#pragma once

#include <functional>
#include <span>
#include <string_view>
#include <vector>

#include "engine/sampling.hpp"
#include "engine/session.hpp"

namespace sinew::engine {

enum class Finish { length, end_token, context_full, stopped };
std::string_view finish_name(Finish finish);  // "length", "stop", "context_full", "stopped"

struct Generation {
  std::vector<TokenId> tokens;  // after the prompt, without the end token
  Finish finish = Finish::length;
  double prefill_seconds = 0, decode_seconds = 0;
};

// Goes on from `prompt`, whose tokens follow those `sequence` holds. `sampler` is told the prompt and what
// was drawn. `each` hears every token and ends the generation by returning false. Ends at a token of `ends`,
// at the model's max_position_embeddings and when the cache is full. The last drawn token is not in the
// sequence.
Generation generate(Session& session, Sequence& sequence, std::span<const TokenId> prompt, Sampler& sampler,
                    std::int64_t max_tokens, std::span<const std::int64_t> ends,
                    const std::function<bool(TokenId)>& each = {});

// How many tokens the sequence can still take: of the model's positions and of the cache.
index_t free_positions(const Session& session, const Sequence& sequence);

// The tokens that end a text: those of the config, of the tokenizer, and of chat formats its vocabulary has.
std::vector<std::int64_t> end_tokens(const ModelConfig& config, const Tokenizer& tokenizer);

}  // namespace sinew::engine
