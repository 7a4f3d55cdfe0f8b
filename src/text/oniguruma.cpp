// Oniguruma's regular expressions (its doc/RE, Ruby syntax) in PCRE2's syntax.
#include <string>

#include "base/error.hpp"
#include "text/pattern.hpp"

namespace sinew {
namespace {

// PCRE2's own \s also takes U+180E, and its \w other numbers and no marks; Oniguruma's \w has the numbers of
// Latin-1 (superscripts, fractions) and no others.
constexpr const char* kSpace =
    R"(\t-\r \x{85}\x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000})";
constexpr const char* kNotSpace =
    R"(\x{0}-\x{8}\x{E}-\x{1F}!-\x{84}\x{86}-\x{9F}\x{A1}-\x{167F}\x{1681}-\x{1FFF}\x{200B}-\x{2027})"
    R"(\x{202A}-\x{202E}\x{2030}-\x{205E}\x{2060}-\x{2FFF}\x{3001}-\x{10FFFF})";
constexpr const char* kWord = R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\x{B2}\x{B3}\x{B9}\x{BC}-\x{BE})";

class Translator {
 public:
  Translator(std::string_view regex, const std::string& origin) : in_(regex), origin_(origin) {}

  std::string run() {
    while (at_ < in_.size()) {
      const char c = in_[at_];
      if (c == '\\') {
        escape();
      } else if (in_class_) {
        class_char(c);
      } else if (c == '[') {
        open_class();
      } else if (c == '(') {
        group();
      } else if (c == '}' && at_ + 1 < in_.size() && in_[at_ + 1] == '+') {
        unsupported("a quantifier {n,m} followed by +");
      } else {
        out_ += c;
        ++at_;
      }
    }
    return out_;
  }

 private:
  std::string_view in_;
  const std::string& origin_;
  std::string out_;
  std::size_t at_ = 0;
  bool in_class_ = false;

  [[noreturn]] void unsupported(const std::string& what) const {
    fail("{}: the regular expression is not supported: {} at byte {}", origin_, what, at_);
  }

  void take(const std::string& translation, std::size_t length) {
    out_ += translation;
    at_ += length;
  }

  void escape() {
    if (at_ + 1 >= in_.size()) unsupported("a lone backslash");
    const char c = in_[at_ + 1];
    const auto set = [&](const std::string& ranges) { return in_class_ ? ranges : "[" + ranges + "]"; };
    const std::string word = std::string("[") + kWord + "]";
    switch (c) {
      case 's':
        return take(set(kSpace), 2);
      case 'S':
        return take(in_class_ ? kNotSpace : std::string("[^") + kSpace + "]", 2);
      case 'w':
        return take(set(kWord), 2);
      case 'W':
        if (in_class_) unsupported("\\W in a class");
        return take(std::string("[^") + kWord + "]", 2);
      case 'b':
        if (in_class_) return take("\\x{8}", 2);
        return take("(?:(?<=" + word + ")(?!" + word + ")|(?<!" + word + ")(?=" + word + "))", 2);
      case 'B':
        if (in_class_) unsupported("\\B in a class");
        return take("(?:(?<=" + word + ")(?=" + word + ")|(?<!" + word + ")(?!" + word + "))", 2);
      case 'u':
        return code_point();
      case 'x':
        if (at_ + 2 < in_.size() && in_[at_ + 2] != '{' && in_[at_ + 2] >= '8')
          unsupported("a byte above 7F");
        return braced();
      case 'p':
      case 'P':
        if (at_ + 2 >= in_.size() || in_[at_ + 2] != '{') unsupported("a property without braces");
        return braced();
      case 'd':
      case 'D':
      case 't':
      case 'n':
      case 'r':
      case 'f':
      case 'a':
      case 'e':
      case 'A':
      case 'z':
      case 'Z':
      case 'v':
        return take(c == 'v' ? "\\x{B}" : std::string{'\\', c}, 2);
      default:
        break;
    }
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    if (letter) unsupported(std::string("\\") + c);
    take(std::string{'\\', c}, 2);
  }

  // \p{..}, \x{..}, \xHH
  void braced() {
    std::size_t length = 2;
    if (at_ + 2 < in_.size() && in_[at_ + 2] == '{') {
      const std::size_t end = in_.find('}', at_);
      if (end == std::string_view::npos) unsupported("a missing }");
      length = end + 1 - at_;
    }
    take(std::string(in_.substr(at_, length)), length);
  }

  void code_point() {  // \uHHHH
    std::string digits(in_.substr(at_ + 2, 4));
    if (digits.size() != 4 || digits.find_first_not_of("0123456789abcdefABCDEF") != std::string::npos)
      unsupported("\\u without four hexadecimal digits");
    take("\\x{" + digits + "}", 6);
  }

  void open_class() {
    in_class_ = true;
    take("[", 1);
    if (at_ < in_.size() && in_[at_] == '^') take("^", 1);
    if (at_ < in_.size() && in_[at_] == ']') unsupported("] at the start of a class");
  }

  void class_char(char c) {
    if (c == '[') unsupported("a class inside a class");
    if (c == '&' && at_ + 1 < in_.size() && in_[at_ + 1] == '&') unsupported("an intersection of classes");
    if (c == ']') in_class_ = false;
    take(std::string{c}, 1);
  }

  // Groups mean the same but for the options: (?m) is another option in PCRE2.
  void group() {
    take("(", 1);
    if (at_ >= in_.size() || in_[at_] != '?') {
      if (at_ < in_.size() && in_[at_] == '*') unsupported("(*");
      return;
    }
    std::size_t end = at_ + 1;
    while (end < in_.size() && (in_[end] == '-' || (in_[end] >= 'a' && in_[end] <= 'z'))) ++end;
    const std::string_view options = in_.substr(at_ + 1, end - at_ - 1);
    for (const char option : options)
      if (option != 'i' && option != '-') unsupported("the option (?" + std::string{option} + ")");
    const char next = end < in_.size() ? in_[end] : '\0';
    const bool behind = next == '<' && end + 1 < in_.size() && (in_[end + 1] == '=' || in_[end + 1] == '!');
    if (next != ':' && next != ')' && next != '=' && next != '!' && next != '>' && !behind)
      unsupported("this kind of group");
    take(std::string(in_.substr(at_, end - at_)), end - at_);
  }
};

}  // namespace

std::string translate_oniguruma(std::string_view regex, const std::string& origin) {
  return Translator(regex, origin).run();
}

}  // namespace sinew
