// SentencePiece's model file (a ModelProto, src/sentencepiece_model.proto), read by hand with bounds.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace sinew {

struct SentencePiece {
  enum class Type { normal = 1, unknown = 2, control = 3, user_defined = 4, unused = 5, byte = 6 };
  std::string text;
  float score = 0;
  Type type = Type::normal;
};

struct SentencePieceModel {
  enum class Kind { unigram = 1, bpe = 2, word = 3, character = 4 };
  std::vector<SentencePiece> pieces;  // by id
  Kind kind = Kind::unigram;
  bool byte_fallback = false, treat_whitespace_as_suffix = false;
  std::string unk_surface = " \xE2\x81\x87 ";
  std::string precompiled_charsmap;
  bool add_dummy_prefix = true, remove_extra_whitespaces = true, escape_whitespaces = true;
  bool has_denormalizer = false;
  std::int64_t unk_id = 0, bos_id = 1, eos_id = 2;  // -1: none
};

// Throws UserError that names `origin` on what is damaged.
SentencePieceModel parse_sentencepiece_model(std::string_view bytes, const std::string& origin);

// True when the bytes begin like a ModelProto: a first piece with a text.
bool looks_like_sentencepiece(std::string_view bytes);

}  // namespace sinew
