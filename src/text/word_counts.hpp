// How often each pre-token occurs: a hash table over one arena of bytes.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace sinew {

class WordCounts {
 public:
  struct Word {
    std::uint64_t hash = 0, count = 0;
    std::size_t text = 0;  // offset into the arena
    std::uint32_t size = 0;
  };
  WordCounts();
  void add(std::string_view word, std::uint64_t count = 1);
  void add_all(const WordCounts& other);
  std::string_view text(const Word& word) const {
    return std::string_view(arena_).substr(word.text, word.size);
  }
  // Ordered by bytes, so that nothing depends on how the counting was divided.
  std::vector<Word> sorted() const;
  std::size_t size() const { return used_; }

 private:
  std::vector<Word> slots_;  // count 0: free
  std::string arena_;
  std::size_t used_ = 0;
  void add_hashed(std::string_view word, std::uint64_t hash, std::uint64_t count);
  void grow();
};

}  // namespace sinew
