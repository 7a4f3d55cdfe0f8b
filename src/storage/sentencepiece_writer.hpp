// SentencePiece's tokenizer.model (sentencepiece_model.proto, message ModelProto): its pieces and the
// settings that matter to Llama's BPE kind, read and written.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace sinew {

enum class PieceType : std::uint32_t {
  normal = 1,
  unknown = 2,
  control = 3,
  user_defined = 4,
  unused = 5,
  byte = 6
};

struct WrittenPiece {
  std::string piece;  // with U+2581 for a space
  float score = 0;
  PieceType type = PieceType::normal;
};

struct WrittenPieceOptions {
  std::int32_t unk_id = 0, bos_id = 1, eos_id = 2, pad_id = -1;
  bool add_dummy_prefix = true;  // a space before the text
};

std::string write_sentencepiece_model(const std::vector<WrittenPiece>& pieces,
                                      const WrittenPieceOptions& options = {});

}  // namespace sinew
