// Batches read ahead by a thread of their own, in the order in which steps use them.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>

#include "text/loader.hpp"
#include "train/rows.hpp"

namespace sinew {

class Prefetcher {
 public:
  // Call n of next() gives rows(first_step + n) sequences, from sample `first_sample` on without gaps.
  // `depth` batches are kept ready; 0: read on demand by the caller. With `own` only the runs of rows that it
  // gives for a batch of so many are read.
  Prefetcher(const Loader& loader, std::uint64_t first_sample, std::int64_t first_step,
             std::function<std::int64_t(std::int64_t)> rows, std::int64_t depth,
             std::function<std::vector<RowRun>(std::int64_t)> own = {});
  ~Prefetcher();
  Prefetcher(const Prefetcher&) = delete;
  Prefetcher& operator=(const Prefetcher&) = delete;

  TokenBatch next();  // rethrows what the reader threw

 private:
  TokenBatch read();
  void work();

  const Loader& loader_;
  std::uint64_t sample_;
  std::int64_t step_;
  std::function<std::int64_t(std::int64_t)> rows_;
  std::function<std::vector<RowRun>(std::int64_t)> own_;
  std::size_t depth_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<TokenBatch> ready_;
  std::exception_ptr error_;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace sinew
