#include "text/normalizer.hpp"

#include "text/byte_level.hpp"
#include "text/utf8.hpp"

namespace sinew {
namespace {

template <class... F>
struct Overload : F... {
  using F::operator()...;
};
template <class... F>
Overload(F...) -> Overload<F...>;  // clang 14 does not deduce it

std::string_view strip(std::string_view text, bool left, bool right) {
  std::size_t begin = 0, end = 0;  // of what is kept
  bool leading = true;
  for (std::size_t i = 0; i < text.size();) {
    const Utf8Char c = utf8_at(text, i);
    i += c.length;
    const bool space = c.valid && is_white_space(c.code);
    leading = leading && space;
    if (leading) begin = i;
    if (!space) end = i;
  }
  if (!left) begin = 0;
  if (!right) end = text.size();
  return end > begin ? text.substr(begin, end - begin) : std::string_view();
}

std::string run_step(const Normalizer::Step& step, std::string_view text) {
  return std::visit(
      Overload{
          [&](const LowercaseStep&) { return lowercase(text); },
          [&](const StripMarksStep&) { return strip_marks(text); },
          [&](const BytesToCharsStep&) { return bytes_to_chars(text); },
          [&](const NormalFormStep& s) { return normal_form(text, s.form); },
          [&](const StripStep& s) { return std::string(strip(text, s.left, s.right)); },
          [&](const PrependStep& s) { return text.empty() ? std::string() : s.text + std::string(text); },
          [&](const ReplaceStep& s) { return replace_all(text, s.pattern, s.content); },
      },
      step);
}

void parse_into(const JsonPlace& place, Normalizer& out) {
  const std::string type = place.text("type");
  if (type == "Sequence") {
    for (const auto& inner : place.list("normalizers")) parse_into(place.enter(inner, "normalizers"), out);
  } else if (type == "NFC") {
    out.add(NormalFormStep{NormalForm::nfc});
  } else if (type == "NFD") {
    out.add(NormalFormStep{NormalForm::nfd});
  } else if (type == "NFKC") {
    out.add(NormalFormStep{NormalForm::nfkc});
  } else if (type == "NFKD") {
    out.add(NormalFormStep{NormalForm::nfkd});
  } else if (type == "Lowercase") {
    out.add(LowercaseStep{});
  } else if (type == "StripAccents") {
    out.add(StripMarksStep{});
  } else if (type == "ByteLevel") {
    out.add(BytesToCharsStep{});
  } else if (type == "Strip") {
    out.add(StripStep{place.flag("strip_left", true), place.flag("strip_right", true)});
  } else if (type == "Prepend") {
    out.add(PrependStep{place.text("prepend")});
  } else if (type == "Replace") {
    out.add(ReplaceStep{parse_pattern(place), place.text("content")});
  } else {
    fail(
        "{}: the normalizer \"{}\" is not supported (supported: NFC, NFD, NFKC, NFKD, Lowercase, "
        "StripAccents, Strip, "
        "Prepend, Replace, ByteLevel, Sequence)",
        place.where, type);
  }
}

}  // namespace

std::string replace_all(std::string_view text, const Pattern& pattern, const std::string& content) {
  std::string out;
  out.reserve(text.size());
  each_utf8_run(text, [&](std::string_view run, bool valid) {
    if (!valid) {
      out += run;
      return;
    }
    pattern.each_piece(run, [&](std::size_t begin, std::size_t end, bool matched) {
      if (matched)
        out += content;
      else
        out += run.substr(begin, end - begin);
    });
  });
  return out;
}

void Normalizer::add(Step step) { steps_.push_back(std::move(step)); }

std::string Normalizer::operator()(std::string_view text) const {
  std::string out(text);
  for (const Step& step : steps_) out = run_step(step, out);
  return out;
}

Normalizer parse_normalizer(const JsonPlace& place) {
  Normalizer normalizer;
  parse_into(place, normalizer);
  return normalizer;
}

Pattern parse_pattern(const JsonPlace& owner) {
  const JsonPlace place = owner.enter(owner.get("pattern"), "pattern");
  if (place.value.is_string()) return Pattern::literal(place.value.get<std::string>(), place.where);
  if (place.find("String") != nullptr) return Pattern::literal(place.text("String"), place.where);
  require(place.find("Regex") != nullptr, "{} must hold \"String\" or \"Regex\"", place.where);
  return Pattern::regex(place.text("Regex"), place.where);
}

}  // namespace sinew
