#include "storage/sentencepiece_writer.hpp"

#include <algorithm>
#include <bit>
#include <string_view>

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

std::string trainer_spec(std::size_t vocabulary, bool byte_fallback, const WrittenPieceOptions& options) {
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

std::string normalizer_spec(const WrittenPieceOptions& options) {
  std::string out;
  put_bytes(out, 1, "identity");
  put_number(out, 3, options.add_dummy_prefix ? 1 : 0);
  put_number(out, 4, 0);  // remove_extra_whitespaces
  put_number(out, 5, 1);  // escape_whitespaces
  return out;
}

}  // namespace

std::string write_sentencepiece_model(const std::vector<WrittenPiece>& pieces,
                                      const WrittenPieceOptions& options) {
  std::string out;
  for (const WrittenPiece& piece : pieces) {
    std::string message;
    put_bytes(message, 1, piece.piece);
    put_float(message, 2, piece.score);
    if (piece.type != PieceType::normal) put_number(message, 3, static_cast<std::int64_t>(piece.type));
    put_bytes(out, 1, message);
  }
  const bool bytes = std::any_of(pieces.begin(), pieces.end(),
                                 [](const WrittenPiece& piece) { return piece.type == PieceType::byte; });
  put_bytes(out, 2, trainer_spec(pieces.size(), bytes, options));
  put_bytes(out, 3, normalizer_spec(options));
  return out;
}

}  // namespace sinew
