// The pre-tokenizers that GGUF files name in `tokenizer.ggml.pre` (llama.cpp's src/llama-vocab.cpp).
#pragma once

#include <string>
#include <vector>

#include "text/pre_tokenizer.hpp"

namespace sinew {

struct GgufPreTokenizer {
  PreTokenizer pre_tokenizer;         // without the mapping of bytes
  std::vector<std::string> patterns;  // what it splits by, one after the other
  bool ignore_merges = false, add_bos = false;
};

// Throws UserError that names `origin` on a name that is not known.
GgufPreTokenizer gguf_pre_tokenizer(const std::string& name, const std::string& origin);

}  // namespace sinew
