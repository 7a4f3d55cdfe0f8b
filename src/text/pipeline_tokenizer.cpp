#include "text/pipeline_tokenizer.hpp"

#include <algorithm>
#include <deque>
#include <unordered_map>

#include "base/error.hpp"
#include "text/parallel_encode.hpp"
#include "text/utf8.hpp"

namespace sinew {
namespace {

class PipelineTokenizer final : public Tokenizer {
 public:
  explicit PipelineTokenizer(TokenizerParts parts) : parts_(std::move(parts)) {
    size_ = parts_.vocabulary->size();
    std::vector<AddedToken> raw, normalized;
    std::vector<std::string> raw_patterns, normalized_patterns;
    for (const AddedToken& token : parts_.added) {
      added_[token.id] = token;
      added_ids_.try_emplace(token.content, token.id);
      size_ = std::max<std::int64_t>(size_, token.id + 1);
      (token.normalized ? normalized : raw).push_back(token);
      if (token.normalized)
        normalized_patterns.push_back(parts_.normalizer(token.content));
      else
        raw_patterns.push_back(token.content);
    }
    raw_tokens_ = AddedTokens(std::move(raw), raw_patterns);
    normalized_tokens_ = AddedTokens(std::move(normalized), normalized_patterns);
  }

  std::vector<TokenId> encode(std::string_view text, bool add_special, bool parse_special) const override {
    std::vector<TokenId> ids;
    ids.reserve(text.size() / 4 + 8);
    if (add_special) ids.insert(ids.end(), parts_.prefix.begin(), parts_.prefix.end());
    PieceCachePool::Lease cache(parts_.model->caches());
    std::vector<Segment> outer, inner;
    raw_tokens_.split(text, parse_special, outer);
    for (const Segment& segment : outer) {
      if (segment.token) {
        ids.push_back(*segment.token);
        continue;
      }
      const bool at_start = segment.text.data() == text.data();
      const std::string changed = parts_.normalizer.empty() ? std::string() : parts_.normalizer(segment.text);
      const std::string_view view = parts_.normalizer.empty() ? segment.text : std::string_view(changed);
      inner.clear();
      normalized_tokens_.split(view, parse_special, inner);
      for (const Segment& part : inner) {
        if (part.token)
          ids.push_back(*part.token);
        else
          encode_part(part.text, at_start && part.text.data() == view.data(), *cache, ids);
      }
    }
    if (add_special) ids.insert(ids.end(), parts_.suffix.begin(), parts_.suffix.end());
    return ids;
  }

  std::string decode(std::span<const TokenId> ids, bool skip_special) const override {
    std::string text;
    bool first = true;
    for (const TokenId id : ids) {
      const auto added = added_.find(id);
      if (skip_special && added != added_.end() && added->second.special) {
        check(id);
        continue;
      }
      if (!first) text += parts_.decoder.separator();
      text += bytes_of(id, first);
      first = false;
    }
    return parts_.decoder.finish(std::move(text));
  }

  std::string token_bytes(TokenId id) const override { return bytes_of(id, false); }

  std::string token_text(TokenId id) const override {
    check(id);
    const auto added = added_.find(id);
    return added != added_.end()        ? added->second.content
           : parts_.vocabulary->has(id) ? parts_.vocabulary->text(id)
                                        : "";
  }

  std::optional<TokenId> token_id(std::string_view text) const override {
    const auto added = added_ids_.find(std::string(text));
    return added != added_ids_.end() ? std::optional(added->second) : parts_.vocabulary->find(text);
  }

  bool is_special(TokenId id) const override {
    const auto added = added_.find(id);
    return added != added_.end() && added->second.special;
  }

  std::int64_t vocab_size() const override { return size_; }
  std::optional<TokenId> bos() const override { return parts_.bos; }
  std::optional<TokenId> eos() const override { return parts_.eos; }
  std::string kind() const override { return parts_.kind; }

 private:
  TokenizerParts parts_;
  std::int64_t size_ = 0;
  std::unordered_map<TokenId, AddedToken> added_;
  std::unordered_map<std::string, TokenId> added_ids_;
  AddedTokens raw_tokens_, normalized_tokens_;

  void check(TokenId id) const {
    require(id >= 0 && id < size_, "token id {} is not in the vocabulary of {} tokens", id, size_);
  }

  // "" for an id that the file leaves unused.
  std::string bytes_of(TokenId id, bool first) const {
    check(id);
    const auto added = added_.find(id);
    if (added != added_.end()) return parts_.decoder.token(added->second.content, true, first);
    return parts_.vocabulary->has(id) ? parts_.decoder.token(parts_.vocabulary->text(id), false, first) : "";
  }

  // The first step of the pre-tokenizer sees the whole text; the others, and the model, see its pieces,
  // which are shared out among threads when the text is long.
  void encode_part(std::string_view text, bool at_start, PieceCache& cache, std::vector<TokenId>& ids) const {
    const std::size_t steps = parts_.pre_tokenizer.steps().size();
    std::vector<Piece> pieces{
        {text, at_start, valid_utf8_fast(text) ? Piece::Utf8::valid : Piece::Utf8::unknown}};
    std::deque<std::string> texts;
    parts_.pre_tokenizer.run(pieces, texts, 0, std::min<std::size_t>(1, steps));
    if (steps == 0) {
      std::vector<std::string_view> cuts;
      parts_.model->cut(text, cuts);
      pieces.clear();
      for (const std::string_view cut : cuts) pieces.push_back({cut});
    }
    encode_parts(
        std::span<const Piece>(pieces), parts_.model->caches(), cache, ids,
        [](const Piece& piece) { return piece.text.size(); },
        [&](std::span<const Piece> group, PieceCache& own, std::vector<TokenId>& out) {
          if (steps <= 1) return encode_pieces(group, own, out);
          std::vector<Piece> rest(group.begin(), group.end());
          std::deque<std::string> more;
          parts_.pre_tokenizer.run(rest, more, 1, steps);
          encode_pieces(rest, own, out);
        });
  }

  void encode_pieces(std::span<const Piece> pieces, PieceCache& cache, std::vector<TokenId>& ids) const {
    std::vector<std::string_view> cuts;
    for (const Piece& piece : pieces) {
      cuts.clear();
      parts_.model->cut(piece.text, cuts);
      for (const std::string_view cut : cuts) parts_.model->encode(cut, cache, ids);
    }
  }
};

}  // namespace

std::unique_ptr<Tokenizer> make_pipeline_tokenizer(TokenizerParts parts) {
  return std::make_unique<PipelineTokenizer>(std::move(parts));
}

}  // namespace sinew
