#include "text/decoder.hpp"

#include "text/byte_level.hpp"
#include "text/normalizer.hpp"
#include "text/utf8.hpp"

namespace sinew {
namespace {

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

// -1 when the token is not <0xNN>.
int fallback_byte(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || !token.ends_with('>')) return -1;
  const int high = hex_digit(token[3]), low = hex_digit(token[4]);
  return high < 0 || low < 0 ? -1 : high * 16 + low;
}

std::string run(const DecodeByteLevel&, std::string text, bool plain, bool) {
  std::string bytes;
  return !plain && chars_to_bytes(text, bytes) ? bytes : text;
}

std::string run(const DecodeByteFallback&, std::string text, bool, bool) {
  const int byte = fallback_byte(text);
  return byte < 0 ? text : std::string(1, static_cast<char>(byte));
}

std::string run(const DecodeReplace& step, std::string text, bool, bool) {
  return replace_all(text, step.pattern, step.content);
}

std::string run(const DecodeStrip& step, std::string text, bool, bool) {
  for (std::size_t i = 0; i < step.start && text.starts_with(step.mark); ++i) text.erase(0, step.mark.size());
  for (std::size_t i = 0; i < step.stop && text.ends_with(step.mark); ++i)
    text.resize(text.size() - step.mark.size());
  return text;
}

std::string run(const DecodeMetaspace& step, std::string text, bool, bool first) {
  const std::string content = first && step.drop_first ? "" : " ";
  std::string out;
  for (std::size_t at = 0; at < text.size();) {
    if (std::string_view(text).substr(at).starts_with(step.mark)) {
      out += content;
      at += step.mark.size();
    } else {
      out += text[at++];
    }
  }
  return out;
}

std::string run_all(const std::vector<Decoder::Step>& steps, std::string text, bool plain, bool first) {
  for (const auto& step : steps)
    text = std::visit([&](const auto& s) { return run(s, std::move(text), plain, first); }, step);
  return text;
}

std::size_t count_of(const JsonPlace& place, const char* name) {
  const std::int64_t count = place.integer(name);
  require(count >= 0 && count < 1 << 20, "{}.{} is out of range", place.where, name);
  return static_cast<std::size_t>(count);
}

void parse_into(const JsonPlace& place, Decoder& out) {
  const std::string type = place.text("type");
  if (type == "Sequence") {
    for (const auto& inner : place.list("decoders")) parse_into(place.enter(inner, "decoders"), out);
  } else if (type == "ByteLevel") {
    out.add(DecodeByteLevel{});
  } else if (type == "ByteFallback") {
    out.add(DecodeByteFallback{});
  } else if (type == "Fuse") {
    out.fuse();
  } else if (type == "Replace") {
    out.add(DecodeReplace{parse_pattern(place), place.text("content")});
  } else if (type == "Strip") {
    out.add(DecodeStrip{place.text("content"), count_of(place, "start"), count_of(place, "stop")});
  } else if (type == "Metaspace") {
    const bool drop =
        place.flag("add_prefix_space", true) && place.text("prepend_scheme", "always") != "never";
    out.add(DecodeMetaspace{place.text("replacement", "\xE2\x96\x81"), drop});
  } else {
    fail(
        "{}: the decoder \"{}\" is not supported (supported: ByteLevel, ByteFallback, Fuse, Replace, Strip, "
        "Metaspace, "
        "Sequence)",
        place.where, type);
  }
}

}  // namespace

void Decoder::add(Step step) { (fused_ ? whole_ : each_).push_back(std::move(step)); }

std::string Decoder::token(std::string_view text, bool plain, bool first) const {
  return run_all(each_, std::string(text), plain, first);
}

std::string Decoder::finish(std::string text) const { return run_all(whole_, std::move(text), true, true); }

Decoder parse_decoder(const JsonPlace& place) {
  Decoder decoder;
  parse_into(place, decoder);
  return decoder;
}

}  // namespace sinew
