#include "text/bpe_training.hpp"

#include <algorithm>
#include <queue>
#include <unordered_map>

#include "base/error.hpp"
#include "text/byte_level.hpp"

namespace sinew {
namespace {

using Symbol = std::uint32_t;  // index in TrainedBpe::tokens

struct Pair {
  Symbol left, right;
  bool operator==(const Pair&) const = default;
};
struct PairHash {
  std::size_t operator()(const Pair& pair) const {
    return static_cast<std::size_t>(((static_cast<std::uint64_t>(pair.left) << 32) | pair.right) *
                                    0x9E3779B97F4A7C15u);
  }
};

// Words keep their symbols in place; a pair knows the words it was seen in, so a merge visits only
// those. The queue is lazy: an entry whose count is out of date is put back or dropped when it comes up.
class Trainer {
 public:
  Trainer(const WordCounts& words, const BpeTrainingOptions& options) : options_(options) {
    out_.special_tokens = options.special_tokens;
    std::uint8_t symbol_of[256];
    for (const char byte : byte_alphabet_order()) {
      symbol_of[static_cast<unsigned char>(byte)] = static_cast<std::uint8_t>(out_.tokens.size());
      add_token(std::string(1, byte));
    }
    for (const auto& word : words.sorted()) {
      if (word.size < 2) continue;
      words_.push_back({symbols_.size(), word.size, word.count});
      for (const char byte : words.text(word))
        symbols_.push_back(symbol_of[static_cast<unsigned char>(byte)]);
    }
    for (std::uint32_t w = 0; w < words_.size(); ++w)
      for (std::uint32_t i = 0; i + 1 < words_[w].size; ++i)
        add_pair(w, symbols_[words_[w].begin + i], symbols_[words_[w].begin + i + 1]);
    for (auto& [pair, info] : pairs_) queue(pair, info);
  }

  TrainedBpe run(const std::function<void(std::uint64_t)>& progress) {
    const auto size = [&] {
      return static_cast<std::int64_t>(out_.special_tokens.size() + out_.tokens.size());
    };
    while (size() < options_.vocab_size && !queue_.empty()) {
      const Entry top = queue_.top();
      queue_.pop();
      const auto it = pairs_.find(top.pair);
      if (it == pairs_.end()) continue;
      if (it->second.count != top.count) {  // it has fallen since, or a later entry holds its growth
        if (it->second.count > 0 && it->second.count < top.count) queue(top.pair, it->second);
        continue;
      }
      if (top.count < std::max<std::uint64_t>(1, options_.min_count)) break;
      merge(top.pair);
      if (progress) progress(out_.merges.size());
    }
    return std::move(out_);
  }

 private:
  struct Word {
    std::size_t begin;  // in symbols_
    std::uint32_t size;
    std::uint64_t count;
  };
  struct PairInfo {
    std::uint64_t count = 0, queued = 0;
    std::vector<std::uint32_t> words;  // where it was ever seen
  };
  struct Entry {
    std::uint64_t count;
    Pair pair;
    const Trainer* trainer;
    bool operator<(const Entry& other) const {
      if (count != other.count) return count < other.count;
      const auto& tokens = trainer->out_.tokens;
      const int order = tokens[pair.left].compare(tokens[other.pair.left]);
      return order != 0 ? order < 0 : tokens[pair.right] < tokens[other.pair.right];
    }
  };

  const BpeTrainingOptions& options_;
  TrainedBpe out_;
  std::unordered_map<std::string, Symbol> token_ids_;
  std::vector<Symbol> symbols_;
  std::vector<Word> words_;
  std::unordered_map<Pair, PairInfo, PairHash> pairs_;
  std::vector<Pair> grown_;  // by the merge under way
  std::vector<bool> marks_;
  std::priority_queue<Entry> queue_;

  Symbol add_token(std::string bytes) {
    const auto [it, added] = token_ids_.try_emplace(bytes, static_cast<Symbol>(out_.tokens.size()));
    if (added) out_.tokens.push_back(std::move(bytes));
    return it->second;
  }

  void add_pair(std::uint32_t w, Symbol left, Symbol right) {
    PairInfo& info = pairs_[{left, right}];
    info.count += words_[w].count;
    if (info.words.empty() || info.words.back() != w) info.words.push_back(w);
  }

  // Entries hold a count as it was; the last one queued for a pair is never below its count.
  void queue(const Pair& pair, PairInfo& info) {
    if (info.queued == info.count) return;
    info.queued = info.count;
    queue_.push({info.count, pair, this});
  }

  void merge(const Pair& pair) {
    const Symbol merged = add_token(out_.tokens[pair.left] + out_.tokens[pair.right]);
    out_.merges.emplace_back(out_.tokens[pair.left], out_.tokens[pair.right]);
    const std::vector<std::uint32_t> where = std::move(pairs_[pair].words);
    grown_.clear();
    for (const std::uint32_t w : where) merge_in_word(w, pair, merged);
    pairs_.erase(pair);
    for (const Pair& grown : grown_) queue(grown, pairs_[grown]);
  }

  // Pairs with neither symbol in a match stay as they are; the others leave the counts, and those with
  // the new symbol enter.
  void merge_in_word(std::uint32_t w, const Pair& pair, Symbol merged) {
    Word& word = words_[w];
    Symbol* const symbols = symbols_.data() + word.begin;
    marks_.assign(word.size, false);
    bool any = false;
    for (std::uint32_t i = 0; i + 1 < word.size; ++i) {
      if (symbols[i] != pair.left || symbols[i + 1] != pair.right) continue;
      marks_[i] = marks_[i + 1] = any = true;
      ++i;
    }
    if (!any) return;  // merged away since the pair was seen here
    for (std::uint32_t i = 0; i + 1 < word.size; ++i)
      if (marks_[i] || marks_[i + 1]) pairs_[{symbols[i], symbols[i + 1]}].count -= word.count;
    std::uint32_t to = 0;
    for (std::uint32_t i = 0; i < word.size; ++to) {
      const bool match = marks_[i];
      symbols[to] = match ? merged : symbols[i];
      i += match ? 2 : 1;
      marks_[to] = match;
    }
    word.size = to;
    for (std::uint32_t i = 0; i + 1 < word.size; ++i) {
      if (!marks_[i] && !marks_[i + 1]) continue;
      add_pair(w, symbols[i], symbols[i + 1]);
      grown_.push_back({symbols[i], symbols[i + 1]});
    }
  }
};

}  // namespace

TrainedBpe train_bpe(const WordCounts& words, const BpeTrainingOptions& options,
                     const std::function<void(std::uint64_t)>& progress) {
  const auto least = static_cast<std::int64_t>(options.special_tokens.size()) + 256;
  require(options.vocab_size >= least,
          "a vocabulary of {} has no room for {} special tokens and 256 bytes: use {} or more",
          options.vocab_size, options.special_tokens.size(), least);
  require(options.vocab_size <= 1 << 22, "a vocabulary of {} is too large (at most {})", options.vocab_size,
          1 << 22);
  return Trainer(words, options).run(progress);
}

}  // namespace sinew
