#include "storage/sentencepiece_model.hpp"

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/error.hpp"

namespace sinew {
namespace {

// The protobuf wire format: a field is its number and kind, then a varint, four bytes, or a length and bytes.
void put_varint(std::string& out, std::uint64_t value) {
  while (value >= 0x80) {
    out.push_back(static_cast<char>(value | 0x80));
    value >>= 7;
  }
  out.push_back(static_cast<char>(value));
}

void put_number(std::string& out, std::uint32_t field, std::int64_t value) {
  put_varint(out, field << 3);
  put_varint(out,
             static_cast<std::uint64_t>(value));  // negative numbers as 64 bits, as protobuf writes int32
}

void put_float(std::string& out, std::uint32_t field, float value) {
  put_varint(out, field << 3 | 5);
  const auto bits = std::bit_cast<std::uint32_t>(value);
  for (int shift = 0; shift < 32; shift += 8) out.push_back(static_cast<char>(bits >> shift));
}

void put_bytes(std::string& out, std::uint32_t field, std::string_view bytes) {
  put_varint(out, field << 3 | 2);
  put_varint(out, bytes.size());
  out.append(bytes);
}

std::string trainer_spec(std::size_t vocabulary, bool byte_fallback, const SentencePieceOptions& options) {
  constexpr std::int64_t kBpe = 2;
  std::string out;
  put_number(out, 3, kBpe);  // model_type
  put_number(out, 4, static_cast<std::int64_t>(vocabulary));
  put_number(out, 35, byte_fallback ? 1 : 0);
  put_number(out, 40, options.unk_id);
  put_number(out, 41, options.bos_id);
  put_number(out, 42, options.eos_id);
  put_number(out, 43, options.pad_id);
  return out;
}

std::string normalizer_spec(const SentencePieceOptions& options) {
  std::string out;
  put_bytes(out, 1, "identity");
  put_number(out, 3, options.add_dummy_prefix ? 1 : 0);
  put_number(out, 4, 0);  // remove_extra_whitespaces
  put_number(out, 5, 1);  // escape_whitespaces
  return out;
}

// Reads fields in order; every length is checked against the end of the message.
class Message {
 public:
  Message(std::string_view bytes, const std::string& origin) : bytes_(bytes), origin_(origin) {}

  bool next() {
    if (at_ == bytes_.size()) return false;
    const std::uint64_t key = varint();
    field_ = key >> 3;
    kind_ = static_cast<int>(key & 7);
    if (kind_ == 0) {
      number_ = varint();
    } else if (kind_ == 1) {
      take(8);
    } else if (kind_ == 2) {
      text_ = take(varint());
    } else {
      require(kind_ == 5, "{}: damaged: unknown kind of field", origin_);
      text_ = take(4);
    }
    return true;
  }
  bool is(std::uint64_t field, int kind) const { return field_ == field && kind_ == kind; }
  std::uint64_t number() const { return number_; }
  std::int32_t id() const { return static_cast<std::int32_t>(number_); }
  std::string_view text() const { return text_; }
  float real() const {
    float value = 0;
    std::memcpy(&value, text_.data(), 4);
    return value;
  }

 private:
  std::string_view bytes_, text_;
  const std::string& origin_;
  std::size_t at_ = 0;
  std::uint64_t field_ = 0, number_ = 0;
  int kind_ = 0;

  std::string_view take(std::uint64_t count) {
    require(count <= bytes_.size() - at_, "{}: truncated or damaged", origin_);
    at_ += count;
    return bytes_.substr(at_ - count, count);
  }
  std::uint64_t varint() {
    std::uint64_t value = 0;
    for (int shift = 0; shift < 70; shift += 7) {
      const auto byte = static_cast<unsigned char>(take(1)[0]);
      value |= static_cast<std::uint64_t>(byte & 0x7f) << std::min(shift, 63);
      if (byte < 0x80) return value;
    }
    fail("{}: damaged: a number of more than ten bytes", origin_);
  }
};

SentencePiece read_piece(std::string_view bytes, const std::string& origin) {
  SentencePiece piece;
  for (Message in(bytes, origin); in.next();) {
    if (in.is(1, 2)) piece.piece = in.text();
    if (in.is(2, 5)) piece.score = in.real();
    if (in.is(3, 0)) {
      require(in.number() >= 1 && in.number() <= 6, "{}: piece '{}' has unknown type {}", origin, piece.piece,
              in.number());
      piece.type = static_cast<PieceType>(in.number());
    }
  }
  return piece;
}

}  // namespace

std::string write_sentencepiece_model(const std::vector<SentencePiece>& pieces,
                                      const SentencePieceOptions& options) {
  std::string out;
  for (const SentencePiece& piece : pieces) {
    std::string message;
    put_bytes(message, 1, piece.piece);
    put_float(message, 2, piece.score);
    if (piece.type != PieceType::normal) put_number(message, 3, static_cast<std::int64_t>(piece.type));
    put_bytes(out, 1, message);
  }
  const bool bytes = std::any_of(pieces.begin(), pieces.end(),
                                 [](const SentencePiece& piece) { return piece.type == PieceType::byte; });
  put_bytes(out, 2, trainer_spec(pieces.size(), bytes, options));
  put_bytes(out, 3, normalizer_spec(options));
  return out;
}

SentencePieceModel read_sentencepiece_model(std::string_view bytes, const std::string& origin) {
  SentencePieceModel model;
  for (Message in(bytes, origin); in.next();) {
    if (in.is(1, 2)) model.pieces.push_back(read_piece(in.text(), origin));
    if (in.is(2, 2)) {
      for (Message trainer(in.text(), origin); trainer.next();) {
        if (trainer.is(40, 0)) model.options.unk_id = trainer.id();
        if (trainer.is(41, 0)) model.options.bos_id = trainer.id();
        if (trainer.is(42, 0)) model.options.eos_id = trainer.id();
        if (trainer.is(43, 0)) model.options.pad_id = trainer.id();
      }
    }
    if (in.is(3, 2)) {
      for (Message normalizer(in.text(), origin); normalizer.next();) {
        if (normalizer.is(3, 0)) model.options.add_dummy_prefix = normalizer.number() != 0;
      }
    }
  }
  require(!model.pieces.empty(), "{}: not a SentencePiece model: no pieces", origin);
  return model;
}

}  // namespace sinew
