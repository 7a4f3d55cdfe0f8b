// Appends documents to the numbered shards of one split; can stop at any document and go on later.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "base/checksum.hpp"
#include "text/dataset.hpp"

namespace sinew {

class ShardWriter {
 public:
  // `name` is the split's; a shard is closed once it has `shard_tokens`. `state` is what state() gave
  // when the work stopped: files are cut back to it. Throws IoError, and UserError when they do not fit it.
  ShardWriter(fs::path directory, std::string name, int token_bytes, std::uint64_t shard_tokens,
              const nlohmann::ordered_json& state);
  ~ShardWriter();
  ShardWriter(const ShardWriter&) = delete;
  ShardWriter& operator=(const ShardWriter&) = delete;

  void add(std::span<const TokenId> tokens, std::uint64_t text_bytes);  // one document, not empty
  void sync();                                                          // everything added is on disk
  nlohmann::ordered_json state() const;
  SplitInfo finish();  // closes the last shard

 private:
  struct Output;  // one file being appended to
  void open();
  void close();

  fs::path directory_;
  std::string name_;
  int token_bytes_;
  std::uint64_t shard_tokens_;
  SplitInfo done_;
  ShardInfo now_;
  std::unique_ptr<Output> tokens_, index_;
  std::string scratch_;
};

}  // namespace sinew
