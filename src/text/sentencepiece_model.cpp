#include "text/sentencepiece_model.hpp"

#include <bit>
#include <cstring>
#include <functional>
#include <limits>

#include "base/error.hpp"
#include "text/vocabulary.hpp"

namespace sinew {
namespace {

// One field of a protocol buffer message (developers.google.com/protocol-buffers, "Encoding").
struct Field {
  std::uint32_t number = 0, wire = 0;
  std::uint64_t value = 0;  // varint, fixed32, fixed64
  std::string_view bytes;   // length-delimited
};

class MessageReader {
 public:
  MessageReader(std::string_view bytes, const std::string& origin) : bytes_(bytes), origin_(origin) {}

  bool next(Field& field) {
    if (at_ == bytes_.size()) return false;
    const std::uint64_t key = varint();
    require(key >> 3 > 0 && key >> 3 <= 0x1FFFFFFF, "{}: damaged (field number {} at byte {})", origin_,
            key >> 3, at_);
    field = {static_cast<std::uint32_t>(key >> 3), static_cast<std::uint32_t>(key & 7), 0, {}};
    switch (field.wire) {
      case 0:
        field.value = varint();
        break;
      case 1:
        field.value = fixed(8);
        break;
      case 2:
        field.bytes = take(varint());
        break;
      case 5:
        field.value = fixed(4);
        break;
      default:
        fail("{}: damaged (wire type {} at byte {})", origin_, field.wire, at_);
    }
    return true;
  }

 private:
  std::string_view bytes_;
  const std::string& origin_;
  std::size_t at_ = 0;

  std::string_view take(std::uint64_t size) {
    require(size <= bytes_.size() - at_, "{}: damaged or cut short (a field of {} bytes, {} left)", origin_,
            size, bytes_.size() - at_);
    at_ += static_cast<std::size_t>(size);
    return bytes_.substr(at_ - static_cast<std::size_t>(size), static_cast<std::size_t>(size));
  }

  std::uint64_t varint() {
    std::uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<unsigned char>(take(1)[0]);
      value |= static_cast<std::uint64_t>(byte & 0x7F) << shift;
      if (byte < 0x80) return value;
    }
    fail("{}: damaged (a number of more than ten bytes at byte {})", origin_, at_);
  }

  std::uint64_t fixed(std::size_t size) {
    const std::string_view bytes = take(size);
    std::uint64_t value = 0;
    for (std::size_t i = 0; i < size; ++i)
      value |= static_cast<std::uint64_t>(static_cast<unsigned char>(bytes[i])) << (8 * i);
    return value;
  }
};

void each_field(std::string_view bytes, const std::string& origin,
                const std::function<void(const Field&)>& visit) {
  MessageReader reader(bytes, origin);
  for (Field field; reader.next(field);) visit(field);
}

SentencePiece parse_piece(std::string_view bytes, const std::string& origin) {
  SentencePiece piece;
  each_field(bytes, origin, [&](const Field& field) {
    if (field.number == 1 && field.wire == 2) piece.text = field.bytes;
    if (field.number == 2 && field.wire == 5)
      piece.score = std::bit_cast<float>(static_cast<std::uint32_t>(field.value));
    if (field.number == 3 && field.wire == 0) {
      require(field.value >= 1 && field.value <= 6, "{}: a piece of the unknown type {}", origin,
              field.value);
      piece.type = static_cast<SentencePiece::Type>(field.value);
    }
  });
  require(!piece.text.empty(), "{}: a piece without text", origin);
  require(piece.score == piece.score, "{}: the score of \"{}\" is not a number", origin, piece.text);
  return piece;
}

void parse_trainer(std::string_view bytes, const std::string& origin, SentencePieceModel& model) {
  each_field(bytes, origin, [&](const Field& field) {
    const auto id =
        static_cast<std::int64_t>(static_cast<std::int32_t>(static_cast<std::uint32_t>(field.value)));
    switch (field.number) {
      case 3:
        require(field.wire == 0 && field.value >= 1 && field.value <= 4, "{}: unknown model type {}", origin,
                field.value);
        model.kind = static_cast<SentencePieceModel::Kind>(field.value);
        break;
      case 24:
        model.treat_whitespace_as_suffix = field.value != 0;
        break;
      case 35:
        model.byte_fallback = field.value != 0;
        break;
      case 40:
        model.unk_id = id;
        break;
      case 41:
        model.bos_id = id;
        break;
      case 42:
        model.eos_id = id;
        break;
      case 44:
        model.unk_surface = field.bytes;
        break;
      default:
        break;
    }
  });
}

void parse_normalizer(std::string_view bytes, const std::string& origin, SentencePieceModel& model) {
  each_field(bytes, origin, [&](const Field& field) {
    switch (field.number) {
      case 2:
        model.precompiled_charsmap = field.bytes;
        break;
      case 3:
        model.add_dummy_prefix = field.value != 0;
        break;
      case 4:
        model.remove_extra_whitespaces = field.value != 0;
        break;
      case 5:
        model.escape_whitespaces = field.value != 0;
        break;
      default:
        break;
    }
  });
}

}  // namespace

SentencePieceModel parse_sentencepiece_model(std::string_view bytes, const std::string& origin) {
  SentencePieceModel model;
  each_field(bytes, origin, [&](const Field& field) {
    if (field.wire != 2) return;
    switch (field.number) {
      case 1:
        require(static_cast<std::int64_t>(model.pieces.size()) < Vocabulary::kMaxSize, "{}: too many pieces",
                origin);
        model.pieces.push_back(parse_piece(field.bytes, origin));
        break;
      case 2:
        parse_trainer(field.bytes, origin, model);
        break;
      case 3:
        parse_normalizer(field.bytes, origin, model);
        break;
      case 5:  // a denormalizer without rules changes nothing
        each_field(field.bytes, origin, [&](const Field& inner) {
          if (inner.number == 2 && !inner.bytes.empty()) model.has_denormalizer = true;
        });
        break;
      default:
        break;
    }
  });
  require(!model.pieces.empty(), "{}: no pieces in this SentencePiece model", origin);
  return model;
}

bool looks_like_sentencepiece(std::string_view bytes) {
  // 0x0A LENGTH 0x0A: field 1 (a piece) that begins with field 1 (its text).
  return bytes.size() > 4 && bytes[0] == '\x0A' && static_cast<unsigned char>(bytes[1]) < 0x80 &&
         bytes[2] == '\x0A';
}

}  // namespace sinew
