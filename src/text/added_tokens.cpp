#include "text/added_tokens.hpp"

#include <utf8proc.h>

#include <algorithm>

#include "text/utf8.hpp"

namespace sinew {
namespace {

// \w of Unicode's regular expressions (UTS 18): letters, marks, digits, connectors, joiners.
bool is_word(char32_t code) {
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(code))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
      return true;
    default:
      return code == 0x200C || code == 0x200D || (code >= 0x24B6 && code <= 0x24E9);
  }
}

// Where the last character of text[0, end) begins.
std::size_t previous_char(std::string_view text, std::size_t end) {
  std::size_t begin = end - 1;
  while (begin > 0 && end - begin < 4 && (static_cast<unsigned char>(text[begin]) & 0xC0) == 0x80) --begin;
  const Utf8Char c = utf8_at(text.substr(0, end), begin);
  return c.valid && begin + c.length == end ? begin : end - 1;
}

bool touches_word(std::string_view text, std::size_t begin, std::size_t end) {
  if (begin > 0) {
    const Utf8Char c = utf8_at(text.substr(0, begin), previous_char(text, begin));
    if (c.valid && is_word(c.code)) return true;
  }
  if (end == text.size()) return false;
  const Utf8Char c = utf8_at(text, end);
  return c.valid && is_word(c.code);
}

std::size_t skip_space_left(std::string_view text, std::size_t at) {
  while (at > 0) {
    const std::size_t begin = previous_char(text, at);
    const Utf8Char c = utf8_at(text.substr(0, at), begin);
    if (!c.valid || !is_white_space(c.code)) break;
    at = begin;
  }
  return at;
}

std::size_t skip_space_right(std::string_view text, std::size_t at) {
  while (at < text.size()) {
    const Utf8Char c = utf8_at(text, at);
    if (!c.valid || !is_white_space(c.code)) break;
    at += c.length;
  }
  return at;
}

}  // namespace

TextFinder::TextFinder() : nodes_(1) {}

void TextFinder::add(std::string_view text, std::int32_t value) {
  if (text.empty()) return;
  first_[static_cast<unsigned char>(text[0])] = true;
  std::size_t node = 0;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    auto& next = nodes_[node].next;
    auto it = std::lower_bound(next.begin(), next.end(), byte,
                               [](const auto& edge, unsigned char b) { return edge.first < b; });
    if (it == next.end() || it->first != byte) {
      const auto made = static_cast<std::uint32_t>(nodes_.size());
      next.insert(it, {byte, made});
      nodes_.emplace_back();  // `next` is no longer valid
      node = made;
    } else {
      node = it->second;
    }
  }
  nodes_[node].value = value;
}

std::size_t TextFinder::candidate(std::string_view text, std::size_t from) const {
  while (from < text.size() && !first_[static_cast<unsigned char>(text[from])]) ++from;
  return from;
}

bool TextFinder::step(std::size_t& node, char c) const {
  const auto byte = static_cast<unsigned char>(c);
  const auto& next = nodes_[node].next;
  const auto it = std::lower_bound(next.begin(), next.end(), byte,
                                   [](const auto& edge, unsigned char b) { return edge.first < b; });
  if (it == next.end() || it->first != byte) return false;
  node = it->second;
  return true;
}

std::size_t TextFinder::longest(std::string_view text, std::size_t at, std::int32_t& value) const {
  if (at >= text.size() || !first_[static_cast<unsigned char>(text[at])]) return 0;
  std::size_t best = 0;
  each(text, at, [&](std::size_t length, std::int32_t found) {
    best = length;
    value = found;
  });
  return best;
}

AddedTokens::AddedTokens(std::vector<AddedToken> tokens, const std::vector<std::string>& patterns)
    : tokens_(std::move(tokens)) {
  for (std::size_t i = 0; i < tokens_.size(); ++i) finder_.add(patterns[i], static_cast<std::int32_t>(i));
}

void AddedTokens::split(std::string_view text, bool parse_special, std::vector<Segment>& out) const {
  std::size_t done = 0;
  if (!finder_.empty()) {
    for (std::size_t at = finder_.candidate(text, 0); at < text.size(); at = finder_.candidate(text, at)) {
      std::int32_t which = -1;
      const std::size_t length = finder_.longest(text, at, which);
      if (length == 0) {
        ++at;
        continue;
      }
      const AddedToken& token = tokens_[static_cast<std::size_t>(which)];
      std::size_t begin = at, end = at + length;
      at = end;
      if (token.special && !parse_special) continue;
      if (token.single_word && touches_word(text, begin, end)) continue;
      if (token.lstrip) begin = std::max(skip_space_left(text, begin), done);
      if (token.rstrip) end = skip_space_right(text, end);
      if (done < begin) out.push_back({text.substr(done, begin - done), std::nullopt});
      out.push_back({text.substr(begin, end - begin), token.id});
      done = end;
    }
  }
  if (done < text.size()) out.push_back({text.substr(done), std::nullopt});
}

}  // namespace sinew
