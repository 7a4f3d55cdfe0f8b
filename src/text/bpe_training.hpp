// Learns a byte-level BPE from text (Sennrich et al. 2016 over GPT-2's pre-tokens): the most frequent
// pair of neighbouring tokens becomes a token, again and again. Among pairs of one count the
// lexicographically greater pair of byte strings wins, as in the reference of stanford-cs336.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "text/documents.hpp"
#include "text/word_counts.hpp"

namespace sinew {

struct BpeTrainingOptions {
  std::int64_t vocab_size = 32768;  // special tokens, 256 bytes and merges together
  std::vector<std::string> special_tokens{"<|endoftext|>"};
  std::uint64_t min_count = 1;  // rarer pairs are not merged
};

// Byte strings.
struct TrainedBpe {
  std::vector<std::string> special_tokens;                  // ids from 0
  std::vector<std::string> tokens;                          // ids after them: bytes, then what merges made
  std::vector<std::pair<std::string, std::string>> merges;  // in order of rank
};

// Counts the pre-tokens of documents; those of different calls add up. Special tokens in the text are
// cut out and belong to no pre-token. Parallel over documents.
class WordCounter {
 public:
  explicit WordCounter(std::vector<std::string> special_tokens);
  ~WordCounter();
  void count(const std::vector<Document>& documents);
  WordCounts take();  // all of them

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Throws UserError when vocab_size has no room for the bytes and special tokens. Stops early when no
// pair is left. `progress` is told the number of merges made.
TrainedBpe train_bpe(const WordCounts& words, const BpeTrainingOptions& options,
                     const std::function<void(std::uint64_t)>& progress = {});

// The tokenizer as a Hugging Face tokenizer.json.
std::string write_tokenizer_json(const TrainedBpe& bpe);

// All of it: reads `inputs` (DocumentReader), learns, shows progress, writes `out`.
void train_tokenizer(const std::vector<std::filesystem::path>& inputs, const BpeTrainingOptions& options,
                     const std::string& json_field, const std::filesystem::path& out);

}  // namespace sinew
