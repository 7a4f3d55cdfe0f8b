#include "storage/sentencepiece_writer.hpp"

#include <gtest/gtest.h>

#include "text/sentencepiece_model.hpp"

namespace sinew {

TEST(SentencePieceWriter, TheReaderReadsWhatItWrites) {
  const std::vector<WrittenPiece> pieces{{"<unk>", 0, PieceType::unknown},
                                         {"<s>", 0, PieceType::control},
                                         {"<0x41>", 0, PieceType::byte},
                                         {"\u2581the", -7.5F, PieceType::normal},
                                         {std::string(300, 'x'), -8, PieceType::user_defined}};
  WrittenPieceOptions options;
  options.add_dummy_prefix = false;
  const SentencePieceModel model =
      parse_sentencepiece_model(write_sentencepiece_model(pieces, options), "test");
  ASSERT_EQ(model.pieces.size(), pieces.size());
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    EXPECT_EQ(model.pieces[i].text, pieces[i].piece);
    EXPECT_EQ(model.pieces[i].score, pieces[i].score);
    EXPECT_EQ(static_cast<int>(model.pieces[i].type), static_cast<int>(pieces[i].type));
  }
  EXPECT_EQ(model.kind, SentencePieceModel::Kind::bpe);
  EXPECT_TRUE(model.byte_fallback);
  EXPECT_EQ(model.eos_id, 2);
  EXPECT_FALSE(model.add_dummy_prefix);
  EXPECT_FALSE(model.remove_extra_whitespaces);
}

}  // namespace sinew
