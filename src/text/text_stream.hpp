// Tokens of a prompt, and text out of tokens as they are made.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "config/model_config.hpp"
#include "text/tokenizer.hpp"

namespace sinew {

// Tokens as they come, text out in whole characters; bytes that can be no UTF-8 become U+FFFD. Each token
// costs the same, however long the text is.
class TextStream {
 public:
  explicit TextStream(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}
  std::string push(TokenId id);  // the text that is now certain
  std::string finish();          // what is left

 private:
  static constexpr std::size_t kWindow = 32;  // tokens kept, at most, where they have text
  std::string take(bool all);
  void forget();
  const Tokenizer& tokenizer_;
  std::vector<TokenId> ids_;  // the last ones
  std::string text_;          // of them
  std::size_t taken_ = 0;     // bytes of it given out
};

// The prompt's tokens as a model wants them: with what the tokenizer adds, never none.
std::vector<TokenId> prompt_tokens(const Tokenizer& tokenizer, std::string_view prompt,
                                   const ModelConfig& config);

}  // namespace sinew
