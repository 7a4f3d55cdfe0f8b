#include "engine/generate.hpp"

#include <algorithm>

#include "base/clock.hpp"
#include "base/error.hpp"

namespace sinew::engine {
std::string_view finish_name(Finish finish) {
  constexpr std::string_view kNames[] = {"length", "stop", "context_full", "stopped"};
  return kNames[static_cast<std::size_t>(finish)];
}

index_t free_positions(const Session& session, const Sequence& sequence) {
  const index_t held = (sequence.length() + kPage - 1) / kPage * kPage;
  return std::min<index_t>(session.model().config.max_position_embeddings - sequence.length(),
                           held - sequence.length() + session.pool().free_pages() * kPage);
}

Generation generate(Session& session, Sequence& sequence, std::span<const TokenId> prompt, Sampler& sampler,
                    std::int64_t max_tokens, std::span<const std::int64_t> ends,
                    const std::function<bool(TokenId)>& each) {
  require(!prompt.empty(), "nothing to go on from: the prompt is empty");
  Generation out;
  double start = clock_seconds();
  for (const TokenId id : prompt) sampler.accept(id);
  std::span<const float> logits = session.forward(sequence, prompt);
  out.prefill_seconds = clock_seconds() - start;
  start = clock_seconds();
  while (static_cast<std::int64_t>(out.tokens.size()) < max_tokens) {
    const TokenId next = sampler.sample(logits);
    if (std::find(ends.begin(), ends.end(), next) != ends.end()) {
      out.finish = Finish::end_token;
      break;
    }
    sampler.accept(next);
    out.tokens.push_back(next);
    if (each && !each(next)) {
      out.finish = Finish::stopped;
      break;
    }
    if (static_cast<std::int64_t>(out.tokens.size()) == max_tokens) break;
    if (free_positions(session, sequence) < 1) {
      out.finish = Finish::context_full;
      break;
    }
    logits = session.forward(sequence, {&next, 1});
  }
  out.decode_seconds = clock_seconds() - start;
  return out;
}

std::vector<std::int64_t> end_tokens(const ModelConfig& config, const Tokenizer& tokenizer) {
  std::vector<std::int64_t> ends = config.eos_token_ids;
  if (tokenizer.eos()) ends.push_back(*tokenizer.eos());
  for (const char* text : {"<|im_end|>", "<|eot_id|>", "<|end|>", "<|eom_id|>",
                           "<\xEF\xBD\x9C"
                           "end\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>"})
    if (const auto id = tokenizer.token_id(text); id && tokenizer.is_special(*id)) ends.push_back(*id);
  return ends;
}

}  // namespace sinew::engine
