#include <memory>
#include <mutex>

#include "base/threads.hpp"
#include "text/added_tokens.hpp"
#include "text/bpe_training.hpp"
#include "text/pre_tokenizer.hpp"
#include "text/utf8.hpp"

namespace sinew {

struct WordCounter::Impl {
  AddedTokens special;
  Pattern pattern = Pattern::regex(kGpt2Pattern, "GPT-2's pattern");
  std::mutex mutex;
  std::vector<std::unique_ptr<WordCounts>> free;  // one for each thread that ever counted

  std::unique_ptr<WordCounts> borrow() {
    const std::lock_guard lock(mutex);
    if (free.empty()) return std::make_unique<WordCounts>();
    auto counts = std::move(free.back());
    free.pop_back();
    return counts;
  }
  void give_back(std::unique_ptr<WordCounts> counts) {
    const std::lock_guard lock(mutex);
    free.push_back(std::move(counts));
  }

  void count(std::string_view text, WordCounts& counts) const {
    std::vector<Segment> segments;
    special.split(text, true, segments);
    for (const Segment& segment : segments) {
      if (segment.token) continue;
      each_utf8_run(segment.text, [&](std::string_view run, bool valid) {
        if (!valid) return counts.add(run);
        pattern.each_piece(run, [&](std::size_t begin, std::size_t end, bool) {
          counts.add(run.substr(begin, end - begin));
        });
      });
    }
  }
};

WordCounter::WordCounter(std::vector<std::string> special_tokens) : impl_(std::make_unique<Impl>()) {
  std::vector<AddedToken> tokens;
  for (const auto& text : special_tokens) {
    AddedToken token;
    token.content = text;
    token.special = true;
    tokens.push_back(std::move(token));
  }
  impl_->special = AddedTokens(std::move(tokens), special_tokens);
}

WordCounter::~WordCounter() = default;

void WordCounter::count(const std::vector<Document>& documents) {
  parallel_for(documents.size(), 1, [&](std::size_t begin, std::size_t end) {
    auto counts = impl_->borrow();
    for (std::size_t i = begin; i < end; ++i) impl_->count(documents[i].text, *counts);
    impl_->give_back(std::move(counts));
  });
}

WordCounts WordCounter::take() {
  WordCounts all;
  for (const auto& counts : impl_->free) all.add_all(*counts);
  impl_->free.clear();
  return all;
}

}  // namespace sinew
