#include "eval/perplexity.hpp"

#include <algorithm>
#include <cmath>

#include "base/clock.hpp"
#include "base/error.hpp"
#include "engine/log_probability.hpp"

namespace sinew::eval {
namespace {

constexpr std::int64_t kWindow = 2048;

void check(const PerplexityOptions& o, std::int64_t longest) {
  require(o.window >= 2 && o.window <= longest, "perplexity: a window of {} tokens; the model takes 2 to {}",
          o.window, longest);
  require(o.stride >= 1 && o.stride < o.window, "perplexity: a stride of {} tokens in windows of {}",
          o.stride, o.window);
  require(o.max_tokens >= 0, "perplexity: {} tokens", o.max_tokens);
}

PerplexityOptions with_defaults(PerplexityOptions o, std::int64_t longest) {
  if (o.window == 0) o.window = std::min(kWindow, longest);
  if (o.stride == 0) o.stride = std::max<std::int64_t>(1, o.window / 2);
  check(o, longest);
  return o;
}

}  // namespace

double Perplexity::per_token() const { return std::exp(nats / static_cast<double>(scored)); }
double Perplexity::bits_per_byte() const { return nats / std::log(2.0) / static_cast<double>(bytes); }
double Perplexity::standard_error() const {
  const auto n = static_cast<double>(scored);
  const double mean = nats / n;
  return std::sqrt(std::max(0.0, squares / n - mean * mean) / n);
}

Perplexity perplexity(engine::Session& session, const Tokenizer& tokenizer, std::string_view text,
                      const PerplexityOptions& given, const std::function<bool(std::int64_t)>& report) {
  const auto options = with_defaults(given, session.model().config.max_position_embeddings);
  std::vector<TokenId> ids = tokenizer.encode(text, true, false);
  if (options.max_tokens > 0 && static_cast<std::int64_t>(ids.size()) > options.max_tokens)
    ids.resize(static_cast<std::size_t>(options.max_tokens));
  require(ids.size() >= 2, "perplexity: the text has {} tokens, at least 2 are needed", ids.size());
  const double start = clock_seconds();
  Perplexity out;
  out.tokens = static_cast<std::int64_t>(ids.size());
  std::int64_t scored_to = 1;  // tokens before this one are scored; the first has nothing before it
  for (std::int64_t begin = 0; scored_to < out.tokens; begin += options.stride) {
    const std::int64_t end = std::min(out.tokens, begin + options.window);
    engine::Sequence sequence = session.make_sequence();
    const auto window =
        std::span(ids).subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin));
    const auto score = [&](std::size_t, index_t at, std::span<const float> logits) {
      const std::int64_t next = begin + at + 1;
      if (next < scored_to || next >= end) return;
      const TokenId id = ids[static_cast<std::size_t>(next)];
      const double nats = -engine::log_probability(logits, id);
      out.nats += nats;
      out.squares += nats * nats;
      out.bytes += static_cast<std::int64_t>(tokenizer.token_bytes(id).size());
      ++out.scored;
    };
    // Tokens that are scored already pass without logits.
    const auto seen = static_cast<std::size_t>(std::max<std::int64_t>(0, scored_to - 1 - begin));
    if (seen > 0) {
      const engine::Input context{&sequence, window.first(seen), engine::Logits::none};
      session.forward({&context, 1}, score);
    }
    const engine::Input rest{&sequence, window.subspan(seen), engine::Logits::all};
    session.forward({&rest, 1}, [&](std::size_t input, index_t at, std::span<const float> logits) {
      score(input, at + static_cast<index_t>(seen), logits);
    });
    scored_to = end;
    if (report && !report(out.scored)) break;
  }
  out.seconds = clock_seconds() - start;
  return out;
}

}  // namespace sinew::eval
