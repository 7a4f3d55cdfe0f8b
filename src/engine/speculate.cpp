#include "engine/speculate.hpp"

#include <algorithm>

#include "base/clock.hpp"
#include "base/error.hpp"

namespace sinew::engine {
namespace {

constexpr std::size_t kLongest = 4, kShortest = 2;  // tokens that have to be the same
constexpr index_t kMost =
    7;  // of a draft: with the token before it, as many as the kernels for few tokens take

TokenId likeliest(std::span<const float> logits) {
  return static_cast<TokenId>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

// Drafts, and what they need to know of the tokens that were run.
class Drafter {
 public:
  Drafter(Session& session, Sequence& sequence, const Speculation& speculation)
      : session_(session),
        sequence_(sequence),
        hidden_size_(static_cast<std::size_t>(session.model().config.hidden_size)) {
    const auto layers = static_cast<index_t>(session.model().predictions.size());
    predicts_ = speculation.draft == Draft::predict || (speculation.draft == Draft::automatic && layers > 0);
    require(!predicts_ || layers > 0, "the model has no multi-token-prediction layers to draft with");
    // Layers that predict know nothing of tokens the sequence held before.
    predicts_ = predicts_ && (speculation.draft == Draft::predict || sequence.length() == 0);
    most_ = std::min(kMost, speculation.tokens > 0 ? speculation.tokens : predicts_ ? layers : 4);
  }

  // Room for what forward() gives of `count` tokens, or null when it is not wanted.
  float* hidden(std::size_t count) {
    if (!predicts_) return nullptr;
    hidden_.resize(count * hidden_size_);
    return hidden_.data();
  }

  // `tokens` were run from position `first` on and `next` follows them: the draft of what comes after `next`.
  void draft(std::span<const TokenId> history, index_t first, std::span<const TokenId> tokens, TokenId next,
             std::vector<TokenId>& out) {
    out.clear();
    if (!predicts_) return look_up(history, static_cast<std::size_t>(most_), out);
    following_.assign(tokens.begin() + 1, tokens.end());
    following_.push_back(next);
    for (index_t i = 0; i < most_; ++i) {
      const auto depth =
          std::min<std::size_t>(static_cast<std::size_t>(i), session_.model().predictions.size() - 1);
      out.push_back(
          likeliest(session_.predict(depth, sequence_, first, following_, hidden_.data(), hidden_.data())));
      if (i + 1 == most_) break;
      // The next depth predicts one token further: from the same positions with the tokens one later.
      following_.erase(following_.begin());
      following_.push_back(out.back());
    }
  }

 private:
  Session& session_;
  Sequence& sequence_;
  std::size_t hidden_size_;
  bool predicts_ = false;
  index_t most_ = 0;
  std::vector<float> hidden_;
  std::vector<TokenId> following_;
};

}  // namespace

Draft parse_draft(std::string_view name) {
  if (name == "none") return Draft::none;
  if (name == "auto") return Draft::automatic;
  if (name == "lookup") return Draft::lookup;
  if (name == "mtp") return Draft::predict;
  fail("draft '{}': one of none, auto, lookup, mtp", name);
}

void look_up(std::span<const TokenId> text, std::size_t most, std::vector<TokenId>& out) {
  out.clear();
  for (std::size_t n = kLongest; n >= kShortest; --n) {
    if (text.size() <= n) continue;
    const auto end = text.last(n);
    for (std::size_t at = text.size() - n; at-- > 0;) {
      if (!std::equal(end.begin(), end.end(), text.begin() + static_cast<std::ptrdiff_t>(at))) continue;
      const auto after = text.subspan(at + n, std::min(most, text.size() - at - n));
      out.assign(after.begin(), after.end());
      return;
    }
  }
}

Generation generate_speculatively(Session& session, Sequence& sequence, std::span<const TokenId> prompt,
                                  Sampler& sampler, std::int64_t max_tokens,
                                  std::span<const std::int64_t> ends, const Speculation& speculation,
                                  const std::function<bool(TokenId)>& each, SpeculationCounts* counts) {
  if (speculation.draft == Draft::none)
    return generate(session, sequence, prompt, sampler, max_tokens, ends, each);
  require(!prompt.empty(), "nothing to go on from: the prompt is empty");
  Generation out;
  SpeculationCounts own;
  if (counts == nullptr) counts = &own;
  Drafter drafter(session, sequence, speculation);
  double start = clock_seconds();
  for (const TokenId id : prompt) sampler.accept(id);

  // Each pass runs `tokens` (the prompt, or the last token and a draft); draws go on as long as they are what
  // the draft says.
  std::vector<TokenId> tokens(prompt.begin(), prompt.end()), draft;
  std::size_t known = tokens.size();  // of them; the rest is a draft
  const auto is_end = [&](TokenId id) { return std::find(ends.begin(), ends.end(), id) != ends.end(); };
  bool done = false;
  while (!done) {
    const index_t first = sequence.length();
    std::size_t kept = known;
    bool agrees = true;
    TokenId next = 0;
    const auto hear = [&](std::size_t, index_t at, std::span<const float> logits) {
      const auto t = static_cast<std::size_t>(at);
      if (t + 1 < known || !agrees || done) return;
      next = sampler.sample(logits);
      if (is_end(next)) {
        out.finish = Finish::end_token;
        done = true;
        return;
      }
      sampler.accept(next);
      out.tokens.push_back(next);
      agrees = t + 1 < tokens.size() && tokens[t + 1] == next;
      if (agrees) ++kept;
      if (each && !each(next)) {
        out.finish = Finish::stopped;
        done = true;
      } else if (static_cast<std::int64_t>(out.tokens.size()) == max_tokens) {
        done = true;
      }
    };
    const bool whole_prompt = counts->passes == 0;
    const Input input{&sequence, tokens, tokens.size() == known ? Logits::last : Logits::all,
                      drafter.hidden(tokens.size())};
    session.forward({&input, 1}, std::ref(hear));
    if (whole_prompt) {
      out.prefill_seconds = clock_seconds() - start;
      start = clock_seconds();
    }
    ++counts->passes;
    counts->accepted += static_cast<std::int64_t>(kept - known);
    sequence.truncate(first + static_cast<index_t>(kept));
    if (done) break;
    tokens.resize(kept);
    drafter.draft(sampler.history(), first, tokens, next, draft);
    const index_t room = std::min(free_positions(session, sequence),
                                  static_cast<index_t>(max_tokens) - static_cast<index_t>(out.tokens.size()));
    if (free_positions(session, sequence) < 1) {
      out.finish = Finish::context_full;
      break;
    }
    draft.resize(std::min(draft.size(), static_cast<std::size_t>(std::max<index_t>(0, room - 1))));
    counts->drafted += static_cast<std::int64_t>(draft.size());
    tokens.assign(1, next);
    tokens.insert(tokens.end(), draft.begin(), draft.end());
    known = 1;
  }
  out.decode_seconds = clock_seconds() - start;
  return out;
}

}  // namespace sinew::engine
