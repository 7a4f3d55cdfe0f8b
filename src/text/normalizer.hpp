// The normalizer of a tokenizer.json: changes of the text before it is split.
#pragma once

#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "text/json_fields.hpp"
#include "text/pattern.hpp"
#include "text/unicode.hpp"

namespace sinew {

struct LowercaseStep {};
struct StripMarksStep {};
struct BytesToCharsStep {};
struct NormalFormStep {
  NormalForm form;
};
struct StripStep {  // white space at the ends
  bool left, right;
};
struct PrependStep {
  std::string text;
};
struct ReplaceStep {
  Pattern pattern;
  std::string content;
};

class Normalizer {
 public:
  using Step = std::variant<LowercaseStep, StripMarksStep, BytesToCharsStep, NormalFormStep, StripStep,
                            PrependStep, ReplaceStep>;
  bool empty() const { return steps_.empty(); }
  void add(Step step);
  std::string operator()(std::string_view text) const;

 private:
  std::vector<Step> steps_;
};

// Throws UserError on a type that is not supported.
Normalizer parse_normalizer(const JsonPlace& place);

// `text` with every match replaced; bytes that are not valid UTF-8 match nothing.
std::string replace_all(std::string_view text, const Pattern& pattern, const std::string& content);

}  // namespace sinew
