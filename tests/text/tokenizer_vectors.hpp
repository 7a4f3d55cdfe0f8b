// The texts of ggml-vocab-*.gguf.inp and the ids that go with them.
#pragma once

#include <sstream>
#include <string>
#include <vector>

#include "support/support.hpp"
#include "text/tokenizer.hpp"

namespace sinew::test {

struct TokenizerVector {
  std::string text;
  std::vector<TokenId> ids;
};

inline std::vector<TokenizerVector> tokenizer_vectors(const std::string& name) {
  const fs::path stem = data_dir() / "tokenizers/llama.cpp" / ("ggml-vocab-" + name + ".gguf");
  const std::string texts = slurp(stem.string() + ".inp"), separator = "\n__ggml_vocab_test__\n";
  std::istringstream lines(slurp(stem.string() + ".out"));
  std::vector<TokenizerVector> vectors;
  std::string line;
  for (std::size_t begin = 0; begin < texts.size() && std::getline(lines, line);) {
    const std::size_t end = texts.find(separator, begin);
    TokenizerVector vector{texts.substr(begin, end == std::string::npos ? end : end - begin), {}};
    std::istringstream ids(line);
    for (TokenId id; ids >> id;) vector.ids.push_back(id);
    vectors.push_back(std::move(vector));
    begin = end == std::string::npos ? texts.size() : end + separator.size();
  }
  return vectors;
}

}  // namespace sinew::test
