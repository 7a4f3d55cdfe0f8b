// Logits and loss of given tokens as JSON, to compare with other implementations.
#pragma once

#include <filesystem>

#include "engine/session.hpp"
#include "text/token_rows.hpp"

namespace sinew::engine {

// Writes {"logits": [batch][T][V], "loss": x} to `out`; the loss (mean cross-entropy of each position against
// the next token) if asked for. Memory does not grow with the number of tokens.
void write_logits_report(Session& session, const TokenRows& rows, bool loss,
                         const std::filesystem::path& out);

}  // namespace sinew::engine
