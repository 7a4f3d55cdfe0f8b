#include "quant/gguf_tokenizer.hpp"

#include <gtest/gtest.h>

#include <sstream>

#include "base/files.hpp"
#include "base/text.hpp"
#include "support/support.hpp"
#include "text/tokenizer.hpp"

namespace sinew {

// llama.cpp's own vocabularies, written out as tokenizer files, must still give llama.cpp's ids.
TEST(GgufTokenizer, FilesWrittenFromLlamaCppsVocabulariesGiveItsIds) {
  SINEW_NEED_DATA();
  const auto folder = test::data_dir() / "tokenizers" / "llama.cpp";
  for (const std::string name : {"gpt-2", "deepseek-llm", "llama-spm"}) {
    const test::TempDir dir;
    const fs::path vocabulary = folder / ("ggml-vocab-" + name + ".gguf");
    write_tokenizer_files(Gguf(vocabulary), dir.path());
    const auto tokenizer = load_tokenizer(dir.path());
    std::istringstream expected(test::slurp(vocabulary.string() + ".out"));
    const std::string separator = "\n__ggml_vocab_test__\n",
                      texts = test::slurp(vocabulary.string() + ".inp");
    int count = 0;
    std::string line;
    for (std::size_t at = 0; std::getline(expected, line); ++count) {
      const std::size_t end = std::min(texts.find(separator, at), texts.size());
      std::istringstream numbers(line);
      const std::vector<TokenId> ids{std::istream_iterator<TokenId>(numbers),
                                     std::istream_iterator<TokenId>()};
      EXPECT_EQ(tokenizer->encode(texts.substr(at, end - at), false, false), ids)
          << name << " text " << count;
      at = std::min(end + separator.size(), texts.size());
    }
    EXPECT_GE(count, 40) << name;
  }
}

}  // namespace sinew
