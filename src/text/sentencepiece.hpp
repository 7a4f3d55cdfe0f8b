// SentencePiece tokenizers (Kudo and Richardson 2018; src/bpe_model.cc, unigram_model.cc and
// normalizer.cc of the reference): BPE and unigram, with byte fallback.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "text/added_tokens.hpp"
#include "text/sentencepiece_model.hpp"
#include "text/tokenizer.hpp"

namespace sinew {

struct SentencePieceOptions {
  std::string kind;
  bool add_bos = false, add_eos = false;
  // Tokens cut out of the text first; the dummy prefix comes again after each, as in the first
  // Llama tokenizers.
  std::vector<AddedToken> added;
};

// Throws UserError on a model that is not supported or contradicts itself.
std::unique_ptr<Tokenizer> make_sentencepiece_tokenizer(SentencePieceModel model,
                                                        SentencePieceOptions options,
                                                        const std::string& origin);

// A tokenizer.model; `config` is the tokenizer_config.json beside it, or "".
std::unique_ptr<Tokenizer> parse_sentencepiece(std::string_view bytes, std::string_view config,
                                               const std::string& origin);

}  // namespace sinew
