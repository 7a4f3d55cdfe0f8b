// Search patterns of tokenizer files: literal strings and regular expressions in the syntax of
// Oniguruma (the engine of Hugging Face tokenizers), run by PCRE2 after translation.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

namespace sinew {

// `regex` in PCRE2's syntax with the same matches. Throws UserError that names `origin` on what has
// no exact counterpart.
std::string translate_oniguruma(std::string_view regex, const std::string& origin);

class Pattern {
 public:
  struct Match {
    std::size_t begin, end;
  };

  static Pattern literal(std::string text, const std::string& origin);
  static Pattern regex(std::string_view oniguruma, const std::string& origin);

  // The first match at or after `from` in `text`, which must be valid UTF-8. Throws UserError when the
  // pattern needs too many steps. Thread-safe.
  bool find(std::string_view text, std::size_t from, Match& match) const;

  // Calls visit(begin, end, matched) on pieces that cover `text` (valid UTF-8): matches and what lies
  // between them.
  template <class Visit>
  void each_piece(std::string_view text, Visit&& visit) const {
    std::size_t from = 0, last = 0;
    bool any = false;
    Match match{};
    while (from <= text.size() && find(text, from, match)) {
      // An empty match right after a match is passed over, as the reference does.
      if (match.begin == match.end && any && match.end == last) {
        from = next_char(text, match.end);
        continue;
      }
      if (match.begin > last) visit(last, match.begin, false);
      visit(match.begin, match.end, true);
      from = last = match.end;
      any = true;
    }
    if (last < text.size()) visit(last, text.size(), false);
  }

 private:
  struct Impl;
  std::shared_ptr<const Impl> impl_;
  static std::size_t next_char(std::string_view text, std::size_t at);
};

}  // namespace sinew
