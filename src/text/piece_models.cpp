#include "text/piece_models.hpp"

#include <algorithm>
#include <cfloat>
#include <queue>
#include <unordered_map>

#include "text/utf8.hpp"

namespace sinew {
namespace {

using Type = SentencePiece::Type;

// Control, unknown and byte pieces are never found in text.
bool is_findable(const SentencePiece& piece) {
  return piece.type == Type::normal || piece.type == Type::user_defined || piece.type == Type::unused;
}

// src/bpe_model.cc: the pair that makes the piece with the highest score merges first, the leftmost
// among equals. Unused pieces may be made on the way but are taken apart again.
class PieceBpe final : public PieceModel {
 public:
  explicit PieceBpe(const SentencePieceModel& model) : model_(model), frozen_(user_defined_pieces(model)) {
    for (std::size_t id = 0; id < model.pieces.size(); ++id)
      if (is_findable(model.pieces[id])) ids_.try_emplace(model.pieces[id].text, static_cast<TokenId>(id));
  }

  void cut(std::string_view text, std::vector<CutPiece>& out) const override {
    if (text.empty()) return;
    Work work;
    work.text = text;
    start(work);
    for (std::size_t i = 1; i < work.symbols.size(); ++i)
      try_pair(work, static_cast<Index>(i) - 1, static_cast<Index>(i));
    while (!work.agenda.empty()) {
      const Pair top = work.agenda.top();
      work.agenda.pop();
      Symbol& left = work.symbols[static_cast<std::size_t>(top.left)];
      Symbol& right = work.symbols[static_cast<std::size_t>(top.right)];
      if (left.size == 0 || right.size == 0 || left.size + right.size != top.size) continue;  // out of date
      left.size += right.size;
      right.size = 0;
      left.next = right.next;
      if (right.next >= 0) work.symbols[static_cast<std::size_t>(right.next)].previous = top.left;
      try_pair(work, left.previous, top.left);
      try_pair(work, top.left, left.next);
    }
    for (Index i = 0; i >= 0; i = work.symbols[static_cast<std::size_t>(i)].next) {
      const Symbol& symbol = work.symbols[static_cast<std::size_t>(i)];
      emit(work, text.substr(symbol.begin, symbol.size), out);
    }
  }

 private:
  using Index = std::int64_t;
  struct Symbol {
    Index previous, next;
    std::size_t begin, size;
    bool frozen;
  };
  struct Pair {
    Index left, right;
    float score;
    std::size_t size;
    bool operator<(const Pair& other) const {
      return score < other.score || (score == other.score && left > other.left);
    }
  };
  struct Work {
    std::string_view text;
    std::vector<Symbol> symbols;
    std::priority_queue<Pair> agenda;
    std::unordered_map<std::string_view, std::size_t> parts;  // an unused piece: size of its left part
  };

  const SentencePieceModel& model_;
  TextFinder frozen_;
  std::unordered_map<std::string_view, TokenId> ids_;

  const SentencePiece& piece(TokenId id) const { return model_.pieces[static_cast<std::size_t>(id)]; }

  void start(Work& work) const {
    for (std::size_t at = 0; at < work.text.size();) {
      std::int32_t unused = 0;
      const std::size_t found = frozen_.longest(work.text, at, unused);
      const std::size_t size = found > 0 ? found : utf8_at(work.text, at).length;
      const auto index = static_cast<Index>(work.symbols.size());
      work.symbols.push_back({index - 1, at + size < work.text.size() ? index + 1 : -1, at, size, found > 0});
      at += size;
    }
  }

  void try_pair(Work& work, Index left_index, Index right_index) const {
    if (left_index < 0 || right_index < 0) return;
    const Symbol& left = work.symbols[static_cast<std::size_t>(left_index)];
    const Symbol& right = work.symbols[static_cast<std::size_t>(right_index)];
    if (left.frozen || right.frozen) return;
    const std::string_view joined = work.text.substr(left.begin, left.size + right.size);
    const auto it = ids_.find(joined);
    if (it == ids_.end()) return;
    work.agenda.push({left_index, right_index, piece(it->second).score, joined.size()});
    if (piece(it->second).type == Type::unused) work.parts[joined] = left.size;
  }

  void emit(const Work& work, std::string_view text, std::vector<CutPiece>& out) const {
    std::vector<std::string_view> stack{text};
    while (!stack.empty()) {
      const std::string_view top = stack.back();
      stack.pop_back();
      const auto it = ids_.find(top);
      const auto part = it != ids_.end() && piece(it->second).type == Type::unused ? work.parts.find(top)
                                                                                   : work.parts.end();
      if (part == work.parts.end()) {
        out.push_back({top, it == ids_.end() ? -1 : it->second});
      } else {
        stack.push_back(top.substr(part->second));
        stack.push_back(top.substr(0, part->second));
      }
    }
  }
};

// src/unigram_model.cc, EncodeOptimized: the cut with the highest sum of log probabilities. Scores are
// added in the reference's types, so that ties fall the same way.
class PieceUnigram final : public PieceModel {
 public:
  explicit PieceUnigram(const SentencePieceModel& model) : model_(model) {
    for (std::size_t id = 0; id < model.pieces.size(); ++id) {
      const SentencePiece& piece = model.pieces[id];
      if (is_findable(piece)) finder_.add(piece.text, static_cast<std::int32_t>(id));
      if (piece.type != Type::normal) continue;
      min_score_ = std::min(min_score_, piece.score);
      max_score_ = std::max(max_score_, piece.score);
    }
  }

  void cut(std::string_view text, std::vector<CutPiece>& out) const override {
    struct Best {
      TokenId id = -1;
      float score = 0;
      std::int64_t begin = -1;
    };
    std::vector<Best> best(text.size() + 1);  // best[i]: of the paths that end at i
    const auto offer = [&](std::size_t end, std::size_t begin, TokenId id, double score) {
      if (best[end].begin >= 0 && !(score > best[end].score)) return;
      best[end] = {id, static_cast<float>(score), static_cast<std::int64_t>(begin)};
    };
    constexpr float kUnknownPenalty = 10.0f;
    const float unknown_score = min_score_ - kUnknownPenalty;
    for (std::size_t begin = 0; begin < text.size();) {
      const std::size_t size = utf8_at(text, begin).length;
      const float so_far = best[begin].score;
      bool single = false;
      finder_.each(text, begin, [&](std::size_t length, std::int32_t id) {
        const SentencePiece& piece = model_.pieces[static_cast<std::size_t>(id)];
        if (piece.type == Type::unused) return;
        const double score = piece.type == Type::user_defined
                                 ? static_cast<double>(static_cast<float>(length) * max_score_) - 0.1
                                 : static_cast<double>(piece.score);
        offer(begin + length, begin, id, score + so_far);
        single = single || length == size;
      });
      if (!single) offer(begin + size, begin, -1, static_cast<double>(unknown_score + so_far));
      begin += size;
    }
    const std::size_t first = out.size();
    for (std::size_t end = text.size(); end > 0;) {
      const auto begin = static_cast<std::size_t>(best[end].begin);
      out.push_back({text.substr(begin, end - begin), best[end].id});
      end = begin;
    }
    std::reverse(out.begin() + static_cast<std::ptrdiff_t>(first), out.end());
  }

 private:
  const SentencePieceModel& model_;
  TextFinder finder_;
  float min_score_ = FLT_MAX, max_score_ = FLT_MIN;  // FLT_MIN as in the reference
};

}  // namespace

std::unique_ptr<PieceModel> make_piece_bpe(const SentencePieceModel& model) {
  return std::make_unique<PieceBpe>(model);
}

std::unique_ptr<PieceModel> make_piece_unigram(const SentencePieceModel& model) {
  return std::make_unique<PieceUnigram>(model);
}

TextFinder user_defined_pieces(const SentencePieceModel& model) {
  TextFinder finder;
  for (std::size_t id = 0; id < model.pieces.size(); ++id)
    if (model.pieces[id].type == Type::user_defined)
      finder.add(model.pieces[id].text, static_cast<std::int32_t>(id));
  return finder;
}

}  // namespace sinew
