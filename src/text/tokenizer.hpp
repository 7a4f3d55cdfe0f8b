// Tokenizers: one interface over every supported file.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace sinew {

using TokenId = std::int32_t;

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // Ids of `text`, any bytes. With `add_special`, what the file says to add (BOS, EOS); with
  // `parse_special`, special tokens written out in the text become their ids.
  virtual std::vector<TokenId> encode(std::string_view text, bool add_special = false,
                                      bool parse_special = true) const = 0;
  // The bytes of `ids`; decode(encode(x)) == x for byte-level tokenizers and any bytes x.
  // Throws UserError on an id outside the vocabulary.
  virtual std::string decode(std::span<const TokenId> ids, bool skip_special = false) const = 0;
  // The bytes one token stands for (may be part of a character).
  virtual std::string token_bytes(TokenId id) const = 0;
  // The token as the vocabulary writes it.
  virtual std::string token_text(TokenId id) const = 0;
  // The token that the vocabulary or the added tokens write exactly so, e.g. "<|im_end|>".
  virtual std::optional<TokenId> token_id(std::string_view text) const = 0;
  // A control token: left out by decode(.., skip_special), found in text only with parse_special.
  virtual bool is_special(TokenId id) const = 0;

  virtual std::int64_t vocab_size() const = 0;  // one more than the largest id
  virtual std::optional<TokenId> bos() const = 0;
  virtual std::optional<TokenId> eos() const = 0;
  virtual std::string kind() const = 0;  // e.g. "byte-level BPE (tokenizer.json)", for people
};

// A tokenizer.json, SentencePiece tokenizer.model, GGUF file, or a directory that holds one of them.
std::unique_ptr<Tokenizer> load_tokenizer(const std::filesystem::path& path);

}  // namespace sinew
