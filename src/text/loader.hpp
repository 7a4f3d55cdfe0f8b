// The loader: packed training sequences out of token shards, in one global shuffled order.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "text/tokenizer.hpp"

namespace sinew {

struct DataSource {
  std::filesystem::path path;  // a data set made by `sinew data`
  double weight = 1;           // share of the samples, before normalisation
};

enum class Split { train, validation };

struct LoaderOptions {
  std::vector<DataSource> sources;
  Split split = Split::train;
  std::int64_t sequence = 0;  // T
  std::uint64_t seed = 0;
};

// `rows` sequences of T inputs and their next tokens.
struct TokenBatch {
  std::int64_t rows = 0, sequence = 0;
  std::vector<TokenId> tokens;          // [rows, T + 1]
  std::vector<std::int32_t> documents;  // [rows, T + 1]: ordinal of the token's document within its row
};

class Loader {
 public:
  explicit Loader(LoaderOptions options);  // throws UserError: missing, truncated, empty, too small
  ~Loader();

  // Samples first, first+1, .. of the infinite sequence of samples. Sample n is a pure function of
  // (seed, n): epochs are reshuffled, sources mixed by weight with an error under one sample.
  // Thread-safe.
  TokenBatch get(std::uint64_t first, std::int64_t rows) const;

  std::uint64_t samples_per_epoch() const;  // of all sources together
  std::uint64_t tokens() const;             // in the split
  std::uint64_t bytes() const;              // of text the split's tokens decode to (for bits per byte)
  std::int64_t vocab_size() const;
  std::string tokenizer_checksum() const;  // of the tokenizer the data was made with

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace sinew
