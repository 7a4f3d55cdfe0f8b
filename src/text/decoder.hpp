// The decoder of a tokenizer.json: from tokens back to bytes. Unlike the reference it never replaces
// bytes that are not valid UTF-8, so that every byte string survives encoding and decoding.
#pragma once

#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "text/json_fields.hpp"
#include "text/pattern.hpp"

namespace sinew {

struct DecodeByteLevel {};
struct DecodeByteFallback {};  // <0xNN> becomes the byte
struct DecodeReplace {
  Pattern pattern;
  std::string content;
};
struct DecodeStrip {  // up to `start` characters `mark` at the start, `stop` at the end
  std::string mark;
  std::size_t start, stop;
};
struct DecodeMetaspace {  // the mark becomes a space, or nothing in the first token
  std::string mark;
  bool drop_first;
};

class Decoder {
 public:
  using Step = std::variant<DecodeByteLevel, DecodeByteFallback, DecodeReplace, DecodeStrip, DecodeMetaspace>;

  // Steps up to the first fuse() work on each token alone, those after it on all of the text.
  void add(Step step);
  void fuse() { fused_ = true; }
  void set_separator(std::string separator) { separator_ = std::move(separator); }

  // The bytes of one token; `first` says whether it begins the text. `plain` tokens (added ones) are
  // not in the byte-level alphabet.
  std::string token(std::string_view text, bool plain, bool first) const;
  // What remains to be done once the tokens' bytes are joined by separator().
  std::string finish(std::string text) const;
  const std::string& separator() const { return separator_; }

 private:
  std::vector<Step> each_, whole_;
  bool fused_ = false;
  std::string separator_;
};

Decoder parse_decoder(const JsonPlace& place);

}  // namespace sinew
