// Byte pair encoding by ranked merges (Sennrich et al. 2016; tokenizers/src/models/bpe): the pair with
// the lowest rank merges first, the leftmost among equals.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/piece_cache.hpp"
#include "text/vocabulary.hpp"

namespace sinew {

// From a pair of ids to the rank of its merge and the id it makes.
class MergeTable {
 public:
  struct Merge {
    std::uint64_t pair;
    std::uint32_t rank;
    TokenId merged;
  };
  explicit MergeTable(std::size_t merges = 0);
  void set(TokenId left, TokenId right, std::uint32_t rank, TokenId merged);  // the last one counts
  const Merge* find(TokenId left, TokenId right) const;                       // null when there is none

 private:
  std::vector<Merge> slots_;
  std::uint32_t shift_ = 63;
  std::size_t slot_of(std::uint64_t pair) const;
};

struct BpeOptions {
  bool bytes = false;          // pieces are raw bytes, the vocabulary is in the byte-level alphabet
  bool byte_fallback = false;  // an unknown character becomes its <0xNN> tokens
  bool fuse_unk = false;       // neighbouring unknown characters make one unknown token
  bool ignore_merges = false;  // a piece that is a token stays whole
  std::optional<TokenId> unk;
  std::string continuing_subword_prefix, end_of_word_suffix;
};

class Bpe {
 public:
  // merges[rank] = {left, right}. Throws UserError that names `origin` when a merge makes no token.
  Bpe(std::shared_ptr<const Vocabulary> vocabulary, const std::vector<std::pair<TokenId, TokenId>>& merges,
      BpeOptions options, const std::string& origin);

  // Appends parts of `piece` that may be encoded one by one. Where no pre-tokenizer cuts the text, it is
  // one piece however long, but most models join no word to the mark before the next.
  void cut(std::string_view piece, std::vector<std::string_view>& parts) const;
  // Appends the ids of one part. `cache` belongs to this model.
  void encode(std::string_view part, PieceCache& cache, std::vector<TokenId>& out) const;
  // The same without the cache.
  void encode_whole(std::string_view piece, std::vector<TokenId>& out) const;

  const BpeOptions& options() const { return options_; }
  const PieceCachePool& caches() const { return caches_; }

 private:
  std::shared_ptr<const Vocabulary> vocabulary_;
  BpeOptions options_;
  MergeTable merges_;
  std::array<TokenId, 256> byte_ids_{};      // of a byte alone, -1 when there is no such token
  std::array<TokenId, 256> fallback_ids_{};  // of <0xNN>
  bool cut_at_marks_ = false;
  PieceCachePool caches_;

  bool can_cut_at_marks(const std::vector<std::pair<TokenId, TokenId>>& merges) const;
  void start_symbols(std::string_view piece, std::vector<TokenId>& symbols) const;
  void merge_short(std::vector<TokenId>& symbols) const;
  void merge_long(std::vector<TokenId>& symbols) const;
};

}  // namespace sinew
