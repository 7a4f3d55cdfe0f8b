#include "train/prefetch.hpp"

#include <utility>

namespace sinew {

Prefetcher::Prefetcher(const Loader& loader, std::uint64_t first_sample, std::int64_t first_step,
                       std::function<std::int64_t(std::int64_t)> rows, std::int64_t depth,
                       std::function<std::vector<RowRun>(std::int64_t)> own)
    : loader_(loader),
      sample_(first_sample),
      step_(first_step),
      rows_(std::move(rows)),
      own_(std::move(own)),
      depth_(static_cast<std::size_t>(depth)) {
  if (depth_ > 0) thread_ = std::thread([this] { work(); });
}

Prefetcher::~Prefetcher() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

TokenBatch Prefetcher::read() {
  const std::int64_t rows = rows_(step_++);
  const auto first = sample_;
  sample_ += static_cast<std::uint64_t>(rows);
  if (!own_) return loader_.get(first, rows);
  TokenBatch batch;
  for (const RowRun& run : own_(rows)) {
    const TokenBatch part = loader_.get(first + static_cast<std::uint64_t>(run.first), run.count);
    batch.rows += part.rows;
    batch.sequence = part.sequence;
    batch.tokens.insert(batch.tokens.end(), part.tokens.begin(), part.tokens.end());
    batch.documents.insert(batch.documents.end(), part.documents.begin(), part.documents.end());
  }
  return batch;
}

void Prefetcher::work() {
  for (;;) {
    TokenBatch batch;
    std::exception_ptr error;
    try {
      batch = read();
    } catch (...) {
      error = std::current_exception();
    }
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return stop_ || ready_.size() < depth_; });
    if (stop_) return;
    if (error) {
      error_ = error;
    } else {
      ready_.push_back(std::move(batch));
    }
    changed_.notify_all();
    if (error_) return;
  }
}

TokenBatch Prefetcher::next() {
  if (depth_ == 0) return read();
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return !ready_.empty() || error_; });
  if (ready_.empty()) std::rethrow_exception(error_);
  TokenBatch batch = std::move(ready_.front());
  ready_.pop_front();
  changed_.notify_all();
  return batch;
}

}  // namespace sinew
