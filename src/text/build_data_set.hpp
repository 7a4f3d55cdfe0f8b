// `sinew data`: a corpus and a tokenizer to a data set.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "base/error.hpp"
#include "text/dataset.hpp"
#include "text/documents.hpp"

namespace sinew {

struct DataSetOptions {
  std::vector<fs::path> inputs;
  fs::path tokenizer;  // a file, or a directory that holds one
  fs::path out;
  double val_fraction = 0.02;  // [0, 0.5]
  bool dedup = false;
  std::uint64_t shard_tokens = std::uint64_t{1} << 26;
  DocumentOptions documents;
  // How the work is done; nothing of this shows in the files.
  std::size_t batch_bytes = std::size_t{4} << 20;  // of text read ahead and encoded together
  double save_seconds = 10;                        // between saves of how far the work is
};

struct DataSetResult {
  DataSetInfo info;
  bool was_complete = false;  // nothing had to be done
  bool resumed = false;
};

// Stopped by SIGINT or SIGTERM, everything saved. Exit code 128 + signal.
class Interrupted : public Error {
 public:
  Interrupted(const std::string& message, int signal) : Error(message), signal_(signal) {}
  int exit_code() const override { return 128 + signal_; }

 private:
  int signal_;
};

// Makes options.out, or goes on where an earlier call was stopped; the files are the same either way and
// for any number of threads. Throws UserError, IoError, Interrupted.
DataSetResult build_data_set(const DataSetOptions& options);
// The same with a tokenizer already loaded from `file` (options.tokenizer is not read).
DataSetResult build_data_set(const DataSetOptions& options, const Tokenizer& tokenizer, const fs::path& file);

}  // namespace sinew
