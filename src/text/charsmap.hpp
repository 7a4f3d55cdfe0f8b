// SentencePiece's precompiled normalization rules: a double-array trie (Darts) from prefixes of the
// text to replacements.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace sinew {

class CharsMap {
 public:
  CharsMap() = default;
  // <size of the trie in bytes, u32><trie><replacements, each ended by NUL>. Throws UserError.
  CharsMap(std::string_view blob, const std::string& origin);

  // The longest rule that matches at the start of `text`: its length, 0 when there is none.
  std::size_t match(std::string_view text, std::string_view& replacement) const;

 private:
  std::vector<std::uint32_t> units_;
  std::string replacements_;
};

}  // namespace sinew
