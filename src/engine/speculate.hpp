// Several tokens a pass: a draft is guessed cheaply, the model runs all of it at once and keeps what it would
// have written anyway. The text is the one that generate() writes (Leviathan et al. 2023 in the case that a
// draw is a function of logits and place).
#pragma once

#include "engine/generate.hpp"

namespace sinew::engine {

enum class Draft {
  none,
  automatic,  // prediction layers if the model has them, else prompt lookup
  lookup,     // what followed the same few tokens earlier in the text (Saxena 2023)
  predict,    // the model's own multi-token-prediction layers (DeepSeek-V3 section 2.2)
};
Draft parse_draft(std::string_view name);  // "none", "auto", "lookup", "mtp"; throws UserError

struct Speculation {
  Draft draft = Draft::none;
  index_t tokens = 0;  // of a draft; 0: 4 of lookup, one a prediction layer
};

struct SpeculationCounts {
  std::int64_t passes = 0, drafted = 0, accepted = 0;
};

// generate() with drafts; `counts`, when not null, is added to.
Generation generate_speculatively(Session& session, Sequence& sequence, std::span<const TokenId> prompt,
                                  Sampler& sampler, std::int64_t max_tokens,
                                  std::span<const std::int64_t> ends, const Speculation& speculation,
                                  const std::function<bool(TokenId)>& each = {},
                                  SpeculationCounts* counts = nullptr);

// Up to `most` tokens that followed the latest earlier occurrence of the longest end (4 tokens down to 2) of
// `text`; none where there is no such.
void look_up(std::span<const TokenId> text, std::size_t most, std::vector<TokenId>& out);

}  // namespace sinew::engine
