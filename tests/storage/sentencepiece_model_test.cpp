#include "storage/sentencepiece_model.hpp"

#include <gtest/gtest.h>

#include "base/error.hpp"
#include "support/support.hpp"

namespace sinew {

TEST(SentencePieceModel, ReadsWhatItWrites) {
  const std::vector<SentencePiece> pieces{{"<unk>", 0, PieceType::unknown},
                                          {"<s>", 0, PieceType::control},
                                          {"<0x41>", 0, PieceType::byte},
                                          {"\u2581the", -7.5F, PieceType::normal},
                                          {std::string(300, 'x'), -8, PieceType::user_defined}};
  SentencePieceOptions options;
  options.pad_id = 4;
  options.add_dummy_prefix = false;
  const std::string bytes = write_sentencepiece_model(pieces, options);
  const SentencePieceModel model = read_sentencepiece_model(bytes, "test");
  ASSERT_EQ(model.pieces.size(), pieces.size());
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    EXPECT_EQ(model.pieces[i].piece, pieces[i].piece);
    EXPECT_EQ(model.pieces[i].score, pieces[i].score);
    EXPECT_EQ(model.pieces[i].type, pieces[i].type);
  }
  EXPECT_EQ(model.options.pad_id, 4);
  EXPECT_EQ(model.options.eos_id, 2);
  EXPECT_FALSE(model.options.add_dummy_prefix);
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    try {
      read_sentencepiece_model(bytes.substr(0, size), "test");  // a cut between fields is a shorter message
    } catch (const UserError&) {
    }
  }
  EXPECT_THROW(read_sentencepiece_model("hello", "test"), UserError);
}

TEST(SentencePieceModel, ReadsLlama2) {
  SINEW_NEED_DATA();
  const auto path = test::data_dir() / "tokenizers" / "llama2" / "tokenizer.model";
  const SentencePieceModel model = read_sentencepiece_model(test::slurp(path), path.string());
  ASSERT_EQ(model.pieces.size(), 32000u);
  EXPECT_EQ(model.pieces[0].type, PieceType::unknown);
  EXPECT_EQ(model.pieces[1].piece, "<s>");
  EXPECT_EQ(model.pieces[3].type, PieceType::byte);
  EXPECT_EQ(model.pieces[31999].score, -31740);
  EXPECT_TRUE(model.options.add_dummy_prefix);
  EXPECT_EQ(model.options.pad_id, -1);
}

}  // namespace sinew
