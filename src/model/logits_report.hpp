// Logits, loss and gradient norms of given tokens as JSON, to compare with other implementations.
#pragma once

#include <filesystem>
#include <vector>

#include "model/language_model.hpp"
#include "text/token_rows.hpp"

namespace sinew {

struct LogitsReportOptions {
  bool loss = false;        // "loss": mean cross-entropy of each position against the next token
  bool grad_norms = false;  // "grad_norms": the L2 norm of its gradient for each tensor; "grad_total_norm"
};

// Writes {"logits": [batch][T][V], ..} to `out`; numbers are the shortest that read back as the same fp32.
void write_logits_report(LanguageModel& model, const TokenRows& rows, const LogitsReportOptions& options,
                         at::Device device, const std::filesystem::path& out);

}  // namespace sinew
