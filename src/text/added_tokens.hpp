// Added tokens: texts found in the input before the model sees it
// (tokenizers/src/tokenizer/added_vocabulary.rs).
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer.hpp"

namespace sinew {

struct AddedToken {
  TokenId id = 0;
  std::string content;
  bool single_word = false;  // only where no letter or digit touches it
  bool lstrip = false;       // takes the white space on its left
  bool rstrip = false;       // and on its right
  bool normalized = false;   // looked for in the normalized text
  bool special = false;
};

// Finds texts in a text: at each place the longest that begins there.
class TextFinder {
 public:
  TextFinder();
  void add(std::string_view text, std::int32_t value);
  bool empty() const { return nodes_.size() == 1; }
  // Length of the longest text at `at` and its value; 0 when there is none.
  std::size_t longest(std::string_view text, std::size_t at, std::int32_t& value) const;
  // Calls visit(length, value) for each text at `at`, shorter ones first.
  template <class Visit>
  void each(std::string_view text, std::size_t at, Visit&& visit) const {
    std::size_t node = 0;
    for (std::size_t i = at; i < text.size() && step(node, text[i]); ++i)
      if (nodes_[node].value >= 0) visit(i + 1 - at, nodes_[node].value);
  }
  // The first place at or after `from` where a text may begin.
  std::size_t candidate(std::string_view text, std::size_t from) const;

 private:
  struct Node {
    std::int32_t value = -1;
    std::vector<std::pair<unsigned char, std::uint32_t>> next;  // sorted by byte
  };
  std::vector<Node> nodes_;
  bool step(std::size_t& node, char c) const;  // false when no text goes on so
  std::array<bool, 256> first_{};
};

// Part of a text: a token, or text between tokens.
struct Segment {
  std::string_view text;
  std::optional<TokenId> token;
};

class AddedTokens {
 public:
  AddedTokens() = default;
  // `patterns[i]` is the text by which token i is found (its content, normalized or not).
  AddedTokens(std::vector<AddedToken> tokens, const std::vector<std::string>& patterns);
  bool empty() const { return tokens_.empty(); }
  // Cuts `text` at its tokens; special ones only with `parse_special`.
  void split(std::string_view text, bool parse_special, std::vector<Segment>& out) const;

 private:
  std::vector<AddedToken> tokens_;
  TextFinder finder_;
};

}  // namespace sinew
