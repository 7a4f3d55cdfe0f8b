// The pre-tokenizer: cuts text into pieces that the model encodes one by one.
#pragma once

#include <deque>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "text/json_fields.hpp"
#include "text/pattern.hpp"

namespace sinew {

struct Piece {
  enum class Utf8 : std::uint8_t { unknown, valid, invalid };
  std::string_view text;
  bool at_start = false;  // no text lies before it
  Utf8 utf8 = Utf8::unknown;
};

// What becomes of a match (tokenizers' SplitDelimiterBehavior).
enum class SplitBehavior { removed, isolated, merged_with_previous, merged_with_next, contiguous };

struct SplitPieces {
  Pattern pattern;
  SplitBehavior behavior = SplitBehavior::isolated;
  bool invert = false;
};
struct PrefixSpace {};  // a space before a piece that does not begin with one
struct MapBytes {};     // bytes written in the byte-level alphabet
struct MetaspaceStep {  // spaces written as `mark`, one put before the text
  enum class Prepend { first, never, always };
  std::string mark;
  Prepend prepend = Prepend::always;
};

class PreTokenizer {
 public:
  using Step = std::variant<SplitPieces, PrefixSpace, MapBytes, MetaspaceStep>;
  void add(Step step);
  bool ends_with_map_bytes() const {
    return !steps_.empty() && std::holds_alternative<MapBytes>(steps_.back());
  }
  void drop_last() { steps_.pop_back(); }
  const std::vector<Step>& steps() const { return steps_; }

  // Cuts `pieces` in place. New text goes to `texts`, which must outlive the pieces.
  void operator()(std::vector<Piece>& pieces, std::deque<std::string>& texts) const {
    run(pieces, texts, 0, steps_.size());
  }
  // Steps [first, last) alone: each works on every piece by itself.
  void run(std::vector<Piece>& pieces, std::deque<std::string>& texts, std::size_t first,
           std::size_t last) const;

 private:
  std::vector<Step> steps_;
};

PreTokenizer parse_pre_tokenizer(const JsonPlace& place);

// The pattern of GPT-2's encoder.py, which ByteLevel implies.
extern const char* const kGpt2Pattern;

}  // namespace sinew
