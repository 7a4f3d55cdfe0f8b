// The tokens of a tokenizer as the file writes them, by id and by text.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "text/tokenizer.hpp"

namespace sinew {

class Vocabulary {
 public:
  static constexpr std::int64_t kMaxSize = 1 << 22;  // bounds what a damaged file may ask for

  // Throws UserError that names `origin` on an id out of bounds or given to two texts. Where two ids
  // have one text the first keeps it.
  void add(std::string text, std::int64_t id, const std::string& origin);

  std::optional<TokenId> find(std::string_view text) const;
  bool has(TokenId id) const { return id >= 0 && id < size() && present_[static_cast<std::size_t>(id)]; }
  const std::string& text(TokenId id) const { return texts_[static_cast<std::size_t>(id)]; }
  TokenId size() const { return static_cast<TokenId>(texts_.size()); }  // one more than the largest id

 private:
  struct Hash {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
  };
  std::vector<std::string> texts_;
  std::vector<bool> present_;
  std::unordered_map<std::string, TokenId, Hash, std::equal_to<>> ids_;
};

}  // namespace sinew
