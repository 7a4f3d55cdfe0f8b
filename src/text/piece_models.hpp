// The two ways in which SentencePiece cuts normalized text into pieces.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "text/added_tokens.hpp"
#include "text/sentencepiece_model.hpp"

namespace sinew {

struct CutPiece {
  std::string_view text;
  TokenId id;  // -1: unknown
};

class PieceModel {
 public:
  virtual ~PieceModel() = default;
  // Pieces that cover `text`, in order. Thread-safe.
  virtual void cut(std::string_view text, std::vector<CutPiece>& out) const = 0;
};

// Both keep a reference to `model`.
std::unique_ptr<PieceModel> make_piece_bpe(const SentencePieceModel& model);
std::unique_ptr<PieceModel> make_piece_unigram(const SentencePieceModel& model);

// Pieces of the type user_defined, which normalization and merges leave alone.
TextFinder user_defined_pieces(const SentencePieceModel& model);

}  // namespace sinew
