// A data set on disk: token shards, their indices and dataset.json (docs/data-format.md).
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/files.hpp"
#include "text/tokenizer.hpp"

namespace sinew {

struct ShardInfo {
  std::string file, index;               // names in the directory
  std::uint64_t tokens = 0;              // in `file`, little-endian, token_bytes each
  std::uint64_t documents = 0;           // in `index`, a little-endian uint64 each: where the document ends
  std::uint64_t bytes = 0;               // of text
  std::string checksum, index_checksum;  // XXH3-64, 16 hexadecimal digits
};

struct SplitInfo {
  std::uint64_t tokens = 0, documents = 0, bytes = 0;
  std::vector<ShardInfo> shards;
};

struct DataSetInfo {
  int token_bytes = 2;  // 2 or 4
  std::int64_t vocab_size = 0;
  std::optional<TokenId> eos;       // ends every document
  std::string tokenizer;            // the tokenizer's copy, a name in the directory
  std::string tokenizer_checksum;   // of that file, XXH3-64
  std::uint64_t duplicates = 0;     // documents left out
  nlohmann::ordered_json settings;  // what it was made from and how
  SplitInfo train, validation;
};

constexpr const char* kDataSetFile = "dataset.json";
constexpr const char* kUnfinishedFile = "unfinished.json";

// Whether `directory` holds a data set, finished or not.
bool is_data_set(const fs::path& directory);
// Reads dataset.json. Throws UserError: no data set, unfinished, damaged.
DataSetInfo read_data_set(const fs::path& directory);
nlohmann::ordered_json to_json(const DataSetInfo& info);
nlohmann::ordered_json to_json(const std::vector<ShardInfo>& shards);
// Reads every byte: sizes, checksums, indices, token ids. Throws UserError naming the first damaged file.
DataSetInfo check_data_set(const fs::path& directory);

// Throws UserError when `model` (its name, for the message) has fewer embeddings than the data has token ids.
void check_vocabulary(std::int64_t data_vocab_size, std::int64_t model_vocab_size, std::string_view model);

std::string file_checksum(const fs::path& path);  // XXH3-64, 16 hexadecimal digits

// The tokens of one split as one array over its mapped shards.
class MappedSplit {
 public:
  // Throws UserError naming a shard that is missing or of the wrong size.
  MappedSplit(const fs::path& directory, const DataSetInfo& info, const SplitInfo& split);

  std::uint64_t tokens() const { return tokens_; }
  // out[i] = token first + i, documents[i] = ordinal of its document, 0 for that of the first.
  // Throws UserError on a token id outside the vocabulary.
  void read(std::uint64_t first, std::span<TokenId> out, std::span<std::int32_t> documents) const;

 private:
  struct Shard {
    MappedFile tokens, index;
    std::uint64_t first = 0, count = 0, documents = 0;  // of the split's tokens
  };
  std::vector<Shard> shards_;
  std::uint64_t tokens_ = 0;
  int token_bytes_;
  std::int64_t vocab_size_;
};

}  // namespace sinew
