// The tokenizer made of parts: added tokens, normalizer, pre-tokenizer, BPE model, decoder. Both
// tokenizer.json and the BPE tokenizers inside GGUF files become one of these.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "text/added_tokens.hpp"
#include "text/bpe.hpp"
#include "text/decoder.hpp"
#include "text/normalizer.hpp"
#include "text/pre_tokenizer.hpp"
#include "text/tokenizer.hpp"
#include "text/vocabulary.hpp"

namespace sinew {

struct TokenizerParts {
  std::shared_ptr<const Vocabulary> vocabulary;  // without the added tokens
  std::vector<AddedToken> added;
  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  std::unique_ptr<Bpe> model;
  Decoder decoder;
  std::vector<TokenId> prefix, suffix;  // with add_special
  std::optional<TokenId> bos, eos;
  std::string kind;
};

std::unique_ptr<Tokenizer> make_pipeline_tokenizer(TokenizerParts parts);

}  // namespace sinew
