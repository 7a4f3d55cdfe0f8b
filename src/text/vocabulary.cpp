#include "text/vocabulary.hpp"

#include "base/error.hpp"

namespace sinew {

void Vocabulary::add(std::string text, std::int64_t id, const std::string& origin) {
  require(id >= 0 && id < kMaxSize, "{}: token id {} is out of range (0 to {})", origin, id, kMaxSize - 1);
  const auto at = static_cast<std::size_t>(id);
  if (at >= texts_.size()) {
    texts_.resize(at + 1);
    present_.resize(at + 1);
  }
  require(!present_[at] || texts_[at] == text, "{}: token id {} is given to two tokens", origin, id);
  present_[at] = true;
  ids_.try_emplace(text, static_cast<TokenId>(id));
  texts_[at] = std::move(text);
}

std::optional<TokenId> Vocabulary::find(std::string_view text) const {
  const auto it = ids_.find(text);
  return it == ids_.end() ? std::nullopt : std::optional(it->second);
}

}  // namespace sinew
