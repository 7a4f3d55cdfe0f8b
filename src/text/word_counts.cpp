#include "text/word_counts.hpp"

#include <algorithm>

#include "text/piece_cache.hpp"

namespace sinew {

WordCounts::WordCounts() : slots_(1 << 12) {}

void WordCounts::add(std::string_view word, std::uint64_t count) {
  add_hashed(word, PieceCache::hash(word), count);
}

void WordCounts::add_hashed(std::string_view word, std::uint64_t hash, std::uint64_t count) {
  const std::size_t mask = slots_.size() - 1;
  std::size_t at = hash & mask;
  for (; slots_[at].count != 0; at = (at + 1) & mask) {
    if (slots_[at].hash == hash && text(slots_[at]) == word) {
      slots_[at].count += count;
      return;
    }
  }
  slots_[at] = {hash, count, arena_.size(), static_cast<std::uint32_t>(word.size())};
  arena_ += word;
  if (++used_ * 4 > slots_.size() * 3) grow();
}

void WordCounts::add_all(const WordCounts& other) {
  for (const Word& word : other.slots_)
    if (word.count != 0) add_hashed(other.text(word), word.hash, word.count);
}

void WordCounts::grow() {
  std::vector<Word> old(slots_.size() * 2);
  old.swap(slots_);
  const std::size_t mask = slots_.size() - 1;
  for (const Word& word : old) {
    if (word.count == 0) continue;
    std::size_t at = word.hash & mask;
    while (slots_[at].count != 0) at = (at + 1) & mask;
    slots_[at] = word;
  }
}

std::vector<WordCounts::Word> WordCounts::sorted() const {
  std::vector<Word> words;
  words.reserve(used_);
  for (const Word& word : slots_)
    if (word.count != 0) words.push_back(word);
  std::sort(words.begin(), words.end(), [this](const Word& a, const Word& b) { return text(a) < text(b); });
  return words;
}

}  // namespace sinew
