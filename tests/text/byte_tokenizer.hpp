// A tokenizer for tests of what lies around tokenizers: one token a byte, then EOS; ids may be spread out.
#pragma once

#include "base/error.hpp"
#include "text/tokenizer.hpp"

namespace sinew::test {

class ByteTokenizer : public Tokenizer {
 public:
  explicit ByteTokenizer(std::int64_t vocab_size = 257, bool with_eos = true)
      : vocab_size_(vocab_size), eos_(with_eos) {}

  std::vector<TokenId> encode(std::string_view text, bool = false, bool = true) const override {
    std::vector<TokenId> ids;
    for (const char c : text) ids.push_back(static_cast<unsigned char>(c) + shift());
    return ids;
  }
  std::string decode(std::span<const TokenId> ids, bool skip_special = false) const override {
    std::string text;
    for (const TokenId id : ids)
      if (id != eos() || !skip_special) text += token_bytes(id);
    return text;
  }
  std::string token_bytes(TokenId id) const override {
    if (id == eos()) return "";
    require(id >= shift() && id < shift() + 256, "token id {}", id);
    return std::string(1, static_cast<char>(id - shift()));
  }
  std::string token_text(TokenId id) const override { return id == eos() ? "<eos>" : token_bytes(id); }
  std::optional<TokenId> token_id(std::string_view text) const override {
    if (text.size() == 1) return static_cast<unsigned char>(text[0]) + shift();
    return text == "<eos>" ? eos() : std::nullopt;
  }
  bool is_special(TokenId id) const override { return id == eos(); }
  std::int64_t vocab_size() const override { return vocab_size_; }
  std::optional<TokenId> bos() const override { return std::nullopt; }
  std::optional<TokenId> eos() const override {
    return eos_ ? std::optional(static_cast<TokenId>(vocab_size_ - 1)) : std::nullopt;
  }
  std::string kind() const override { return "bytes"; }

 private:
  TokenId shift() const { return static_cast<TokenId>(vocab_size_ - 257); }
  std::int64_t vocab_size_;
  bool eos_;
};

}  // namespace sinew::test
