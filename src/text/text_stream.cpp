#include "text/text_stream.hpp"

#include <algorithm>

#include "base/error.hpp"
#include "text/utf8.hpp"

namespace sinew {
namespace {

// Bytes of `text` before a character that may not be whole yet.
std::size_t whole_characters(std::string_view text) {
  for (std::size_t back = 1; back <= std::min<std::size_t>(3, text.size()); ++back) {
    const auto byte = static_cast<unsigned char>(text[text.size() - back]);
    if (byte < 0x80) break;
    const std::size_t length = byte >= 0xF0   ? 4
                               : byte >= 0xE0 ? 3
                               : byte >= 0xC0 ? 2
                                              : 0;  // 0: goes on before
    if (length > 0) return length > back ? text.size() - back : text.size();
  }
  return text.size();
}

std::string replace_invalid(std::string_view bytes) {
  std::string out;
  each_utf8_run(bytes, [&](std::string_view run, bool valid) {
    if (valid) {
      out += run;
    } else {
      for (std::size_t i = 0; i < run.size(); ++i) append_utf8(out, 0xFFFD);
    }
  });
  return out;
}

}  // namespace

std::string TextStream::push(TokenId id) {
  if (ids_.size() >= kWindow) forget();
  ids_.push_back(id);
  return take(false);
}

std::string TextStream::finish() { return take(true); }

// Decoders treat the beginning of a text in a way of their own (its leading space, mostly), so what is kept
// begins with a token that has text of its own even there: those after it are decoded as they would be in the
// whole.
void TextStream::forget() {
  std::size_t first = ids_.size() - kWindow / 2;
  while (first > 0 && tokenizer_.decode({&ids_[first], 1}, true).empty()) --first;
  if (first == 0) return;
  const std::size_t waiting = text_.size() - taken_;
  ids_.erase(ids_.begin(), ids_.begin() + static_cast<std::ptrdiff_t>(first));
  text_ = tokenizer_.decode(ids_, true);
  taken_ = text_.size() - std::min(text_.size(), waiting);
}

std::string TextStream::take(bool all) {
  text_ = tokenizer_.decode(ids_, true);
  const auto end = all ? text_.size() : whole_characters(text_);
  if (end <= taken_) return {};
  auto out = replace_invalid(std::string_view(text_).substr(taken_, end - taken_));
  taken_ = end;
  return out;
}

std::vector<TokenId> prompt_tokens(const Tokenizer& tokenizer, std::string_view prompt,
                                   const ModelConfig& config) {
  auto ids = tokenizer.encode(prompt, true);
  if (ids.empty() && tokenizer.bos()) ids.push_back(*tokenizer.bos());
  if (ids.empty() && !config.bos_token_ids.empty())
    ids.push_back(static_cast<TokenId>(config.bos_token_ids[0]));
  require(!ids.empty(), "the prompt is empty and the model has no token to begin with: give --prompt");
  for (const auto id : ids) {
    require(id < config.vocab_size,
            "the tokenizer gives id {}, but the model's vocabulary is {}: they do not belong together", id,
            config.vocab_size);
  }
  return ids;
}

}  // namespace sinew
