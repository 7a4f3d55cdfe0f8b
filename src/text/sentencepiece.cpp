#include "text/sentencepiece.hpp"

#include <array>
#include <unordered_map>

#include "base/error.hpp"
#include "text/charsmap.hpp"
#include "text/json_fields.hpp"
#include "text/parallel_encode.hpp"
#include "text/piece_cache.hpp"
#include "text/piece_models.hpp"
#include "text/utf8.hpp"

namespace sinew {
namespace {

using Type = SentencePiece::Type;
constexpr std::string_view kMark = "\xE2\x96\x81";  // how a space is written in pieces

class SentencePieceTokenizer final : public Tokenizer {
 public:
  SentencePieceTokenizer(SentencePieceModel model, SentencePieceOptions options, const std::string& origin)
      : model_(std::move(model)), options_(std::move(options)) {
    using Kind = SentencePieceModel::Kind;
    require(model_.kind == Kind::bpe || model_.kind == Kind::unigram,
            "{}: SentencePiece models of type word or char are not supported (supported: BPE and unigram)",
            origin);
    require(!model_.has_denormalizer, "{}: SentencePiece denormalization rules are not supported", origin);
    index_pieces(origin);
    if (!model_.precompiled_charsmap.empty()) rules_ = CharsMap(model_.precompiled_charsmap, origin);
    user_defined_ = user_defined_pieces(model_);
    cutter_ = model_.kind == Kind::bpe ? make_piece_bpe(model_) : make_piece_unigram(model_);
    std::vector<std::string> patterns;
    for (const AddedToken& token : options_.added) patterns.push_back(token.content);
    added_ = AddedTokens(options_.added, patterns);
    words_apart_ = can_cut_before_marks();
  }

  std::vector<TokenId> encode(std::string_view text, bool add_special, bool parse_special) const override {
    std::vector<TokenId> ids;
    if (add_special && options_.add_bos && bos()) ids.push_back(*bos());
    std::vector<Segment> segments;
    added_.split(text, parse_special, segments);
    PieceCachePool::Lease cache(caches_);
    for (const Segment& segment : segments) {
      if (segment.token)
        ids.push_back(*segment.token);
      else
        encode_text(segment.text, *cache, ids);
    }
    if (add_special && options_.add_eos && eos()) ids.push_back(*eos());
    return ids;
  }

  // As the reference's Decode, but for bytes that are not UTF-8 (kept), and control pieces, which it
  // leaves out: here only with `skip_special`.
  std::string decode(std::span<const TokenId> ids, bool skip_special) const override {
    const bool strips = model_.add_dummy_prefix || model_.remove_extra_whitespaces;
    std::string text;
    bool at_start = true;  // the dummy prefix may still come
    for (const TokenId id : ids) {
      const SentencePiece& piece = at(id);
      if (piece.type == Type::control) {
        if (skip_special) continue;
        text += piece.text;
        at_start = true;
        continue;
      }
      std::string bytes = token_bytes(id);
      const bool marked = piece.type != Type::byte && piece.text.starts_with(kMark);
      if (at_start && strips && marked) {
        bytes.erase(0, 1);
        at_start = bytes.empty() && model_.remove_extra_whitespaces;
      } else {
        at_start = false;
      }
      text += bytes;
    }
    return text;
  }

  std::string token_bytes(TokenId id) const override {
    const SentencePiece& piece = at(id);
    if (piece.type == Type::byte) return std::string(1, static_cast<char>(byte_of(piece.text)));
    if (piece.type == Type::unknown) return model_.unk_surface;
    if (piece.type == Type::control) return piece.text;
    std::string bytes;
    for (std::size_t i = 0; i < piece.text.size();) {
      const bool mark = std::string_view(piece.text).substr(i).starts_with(kMark);
      bytes += mark ? ' ' : piece.text[i];
      i += mark ? kMark.size() : 1;
    }
    return bytes;
  }

  std::string token_text(TokenId id) const override { return at(id).text; }
  std::optional<TokenId> token_id(std::string_view text) const override {
    const auto it = ids_.find(text);
    return it == ids_.end() ? std::nullopt : std::optional(it->second);
  }
  bool is_special(TokenId id) const override {
    const Type type = at(id).type;
    return type == Type::control || type == Type::unknown;
  }
  std::int64_t vocab_size() const override { return static_cast<std::int64_t>(model_.pieces.size()); }
  std::optional<TokenId> bos() const override { return named(model_.bos_id); }
  std::optional<TokenId> eos() const override { return named(model_.eos_id); }
  std::string kind() const override { return options_.kind; }

 private:
  SentencePieceModel model_;
  SentencePieceOptions options_;
  CharsMap rules_;
  TextFinder user_defined_;
  std::unique_ptr<PieceModel> cutter_;
  AddedTokens added_;
  std::unordered_map<std::string_view, TokenId> ids_;
  std::array<TokenId, 256> byte_ids_{};
  TokenId unk_ = -1;
  bool words_apart_ = false;
  PieceCachePool caches_;

  static int byte_of(std::string_view text) {  // <0xNN>, checked when the model was read
    return std::stoi(std::string(text.substr(3, 2)), nullptr, 16);
  }

  const SentencePiece& at(TokenId id) const {
    require(id >= 0 && id < vocab_size(), "token id {} is not in the vocabulary of {} tokens", id,
            vocab_size());
    return model_.pieces[static_cast<std::size_t>(id)];
  }

  std::optional<TokenId> named(std::int64_t id) const {
    return id >= 0 && id < vocab_size() ? std::optional(static_cast<TokenId>(id)) : std::nullopt;
  }

  void index_pieces(const std::string& origin) {
    byte_ids_.fill(-1);
    for (std::size_t i = 0; i < model_.pieces.size(); ++i) {
      const SentencePiece& piece = model_.pieces[i];
      const auto id = static_cast<TokenId>(i);
      ids_.try_emplace(piece.text, id);
      if (piece.type == Type::unknown && unk_ < 0) unk_ = id;
      if (piece.type != Type::byte) continue;
      const bool sound = piece.text.size() == 6 && piece.text.starts_with("<0x") &&
                         piece.text.ends_with('>') &&
                         piece.text.find_first_not_of("0123456789ABCDEF", 3) == 5;
      require(sound, "{}: the byte piece \"{}\" is not <0xNN>", origin, piece.text);
      byte_ids_[static_cast<std::size_t>(byte_of(piece.text))] = id;
    }
    if (model_.byte_fallback)
      for (const TokenId id : byte_ids_)
        require(id >= 0, "{}: byte fallback without all 256 byte pieces", origin);
    require(unk_ >= 0 || model_.byte_fallback, "{}: the model has no unknown piece", origin);
  }

  // When no piece goes from the end of a word over the mark of the next, words are cut apart without
  // changing anything, and the cache serves them.
  bool can_cut_before_marks() const {
    if (model_.kind != SentencePieceModel::Kind::bpe || !model_.escape_whitespaces) return false;
    for (const SentencePiece& piece : model_.pieces)
      for (std::size_t i = piece.text.find(kMark, 1); i != std::string::npos;
           i = piece.text.find(kMark, i + 1))
        if (!std::string_view(piece.text).substr(0, i).ends_with(kMark)) return false;
    return true;
  }

  void encode_text(std::string_view text, PieceCache& cache, std::vector<TokenId>& ids) const {
    const std::string normalized = normalize(text);
    const std::string_view view = normalized;
    std::vector<std::string_view> words;
    std::size_t begin = 0;
    if (words_apart_) {
      for (std::size_t i = view.find(kMark, 1); i != std::string_view::npos; i = view.find(kMark, i + 1)) {
        if (view.substr(0, i).ends_with(kMark)) continue;
        words.push_back(view.substr(begin, i - begin));
        begin = i;
      }
    }
    words.push_back(view.substr(begin));
    encode_parts(
        std::span<const std::string_view>(words), caches_, cache, ids,
        [](std::string_view word) { return word.size(); },
        [&](std::span<const std::string_view> group, PieceCache& own, std::vector<TokenId>& out) {
          for (const std::string_view word : group) encode_cached(word, own, out);
        });
  }

  void encode_cached(std::string_view text, PieceCache& cache, std::vector<TokenId>& ids) const {
    if (text.empty()) return;
    const bool cacheable = words_apart_ && text.size() <= PieceCache::kLongestPiece;
    const std::uint64_t hash = cacheable ? PieceCache::hash(text) : 0;
    if (cacheable) {
      if (const auto* found = cache.find(text, hash)) {
        ids.insert(ids.end(), found->begin(), found->end());
        return;
      }
    }
    const std::size_t before = ids.size();
    encode_pieces(text, ids);
    if (cacheable) cache.insert(text, hash, std::span(ids).subspan(before));
  }

  void encode_pieces(std::string_view text, std::vector<TokenId>& ids) const {
    std::vector<CutPiece> pieces;
    cutter_->cut(text, pieces);
    bool after_unknown = false;
    for (const CutPiece& piece : pieces) {
      const bool unknown = piece.id < 0;
      if (!unknown) {
        ids.push_back(piece.id);
      } else if (model_.byte_fallback) {
        for (const char byte : piece.text) ids.push_back(byte_ids_[static_cast<unsigned char>(byte)]);
      } else if (!after_unknown) {
        ids.push_back(unk_);  // a run of unknown characters is one token
      }
      after_unknown = unknown;
    }
  }

  // What the text at `i` becomes, and how many bytes of it that takes (Normalizer::NormalizePrefix).
  std::string_view normalize_prefix(std::string_view text, std::size_t i, std::size_t& taken) const {
    std::int32_t unused = 0;
    if (const std::size_t found = user_defined_.longest(text, i, unused); found > 0) {
      taken = found;
      return text.substr(i, found);
    }
    std::string_view replacement;
    if (const std::size_t found = rules_.match(text.substr(i), replacement); found > 0) {
      taken = found;
      return replacement;
    }
    const Utf8Char c = utf8_at(text, i);
    taken = c.length;
    // With byte fallback a byte that is not UTF-8 keeps its value; the reference loses it.
    return c.valid || model_.byte_fallback ? text.substr(i, c.length) : std::string_view("\xEF\xBF\xBD");
  }

  // src/normalizer.cc, Normalizer::Normalize.
  std::string normalize(std::string_view text) const {
    const std::string_view space = model_.escape_whitespaces ? kMark : std::string_view(" ");
    std::string out;
    out.reserve(text.size() * 2 + 8);
    std::size_t i = 0, taken = 0;
    if (model_.remove_extra_whitespaces)
      while (i < text.size() && normalize_prefix(text, i, taken) == " ") i += taken;
    if (i == text.size()) return out;
    if (!model_.treat_whitespace_as_suffix && model_.add_dummy_prefix) out += space;
    bool after_space = model_.remove_extra_whitespaces;
    for (; i < text.size(); i += taken) {
      std::string_view piece = normalize_prefix(text, i, taken);
      while (after_space && piece.starts_with(' ')) piece.remove_prefix(1);
      for (const char c : piece) {
        if (c == ' ')
          out += space;
        else
          out += c;
      }
      if (!piece.empty()) after_space = piece.ends_with(' ');
      if (!model_.remove_extra_whitespaces) after_space = false;
    }
    if (model_.remove_extra_whitespaces)
      while (out.ends_with(space)) out.resize(out.size() - space.size());
    if (model_.treat_whitespace_as_suffix && model_.add_dummy_prefix) out += space;
    return out;
  }
};

}  // namespace

std::unique_ptr<Tokenizer> make_sentencepiece_tokenizer(SentencePieceModel model,
                                                        SentencePieceOptions options,
                                                        const std::string& origin) {
  return std::make_unique<SentencePieceTokenizer>(std::move(model), std::move(options), origin);
}

std::unique_ptr<Tokenizer> parse_sentencepiece(std::string_view bytes, std::string_view config,
                                               const std::string& origin) {
  SentencePieceModel model = parse_sentencepiece_model(bytes, origin);
  SentencePieceOptions options;
  const bool bpe = model.kind == SentencePieceModel::Kind::bpe;
  options.kind = std::string("SentencePiece ") + (bpe ? "BPE" : "unigram") +
                 (model.byte_fallback ? " with byte fallback" : "") + " (tokenizer.model)";
  options.add_bos = bpe;  // the file does not say: Llama's convention for BPE models
  if (!config.empty()) {
    const auto value = nlohmann::json::parse(config, nullptr, false);
    require(!value.is_discarded(), "{} with tokenizer_config.json: not valid JSON", origin);
    const JsonPlace place{value, origin + " with tokenizer_config.json:"};
    options.add_bos = place.flag("add_bos_token", options.add_bos);
    options.add_eos = place.flag("add_eos_token", options.add_eos);
  }
  for (std::size_t id = 0; id < model.pieces.size(); ++id) {
    if (model.pieces[id].type != Type::control) continue;
    AddedToken token;
    token.id = static_cast<TokenId>(id);
    token.content = model.pieces[id].text;
    token.special = true;
    options.added.push_back(std::move(token));
  }
  return make_sentencepiece_tokenizer(std::move(model), std::move(options), origin);
}

}  // namespace sinew
