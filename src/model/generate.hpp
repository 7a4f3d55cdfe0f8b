// Text that a model writes after a prompt.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "model/language_model.hpp"
#include "text/text_stream.hpp"
#include "text/tokenizer.hpp"

namespace sinew {

struct SamplingOptions {
  double temperature = 0;  // 0: the likeliest token
  std::int64_t top_k = 0;  // 0: all; else the k likeliest
  double top_p = 1;        // the fewest likeliest tokens whose probabilities reach top_p
  std::uint64_t seed = 0;
};
// Throws UserError for values that make no sense.
void check_sampling(const SamplingOptions& options);

// A token by its probability; of equal logits the lowest id counts as likelier. `uniform` in [0, 1) chooses.
std::int64_t sample_token(std::span<const float> logits, const SamplingOptions& options, double uniform);

struct GenerateOptions {
  SamplingOptions sampling;
  std::int64_t max_tokens = 256;
  bool cache = true;  // without it every step runs the whole text again
};
enum class Finish { length, end_token, context_full, stopped };
std::string_view finish_name(Finish finish);

struct Generation {
  std::vector<TokenId> tokens;  // after the prompt, without the end token
  Finish finish = Finish::length;
};
// The logits [V] fp32, on the CPU, of the token after `ids`, which grow from call to call.
using NextLogits = std::function<at::Tensor(std::span<const TokenId> ids)>;
// As below, wherever the network is; `positions` is how many tokens it takes.
Generation generate(const NextLogits& next, std::int64_t positions, const std::vector<TokenId>& prompt,
                    const GenerateOptions& options, std::span<const std::int64_t> ends,
                    const std::function<bool(TokenId)>& each = {});

// Token n is a pure function of (prompt, sampling, n). `each` hears every token and ends the generation by
// returning false. Ends at a token of `ends` and at the model's max_position_embeddings.
Generation generate(LanguageModel& model, const std::vector<TokenId>& prompt, const GenerateOptions& options,
                    std::span<const std::int64_t> ends, at::Device device,
                    const std::function<bool(TokenId)>& each = {});

}  // namespace sinew
