// Bytes and calls of every collective, counted where they leave a process (docs/communication.md).
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <utility>

namespace sinew {

// What one process sent to others. A message to a process of the same node is `intra`, else `inter`;
// what a process gives itself is not sent and not counted.
struct Traffic {
  std::int64_t calls = 0, intra_bytes = 0, inter_bytes = 0;
  std::int64_t bytes() const { return intra_bytes + inter_bytes; }
  Traffic& operator+=(const Traffic& other) {
    calls += other.calls;
    intra_bytes += other.intra_bytes;
    inter_bytes += other.inter_bytes;
    return *this;
  }
  bool operator==(const Traffic&) const = default;
};

// Keyed by (group, operation), e.g. ("expert", "all_to_all"). Safe to use from any thread.
class TrafficCounters {
 public:
  using Key = std::pair<std::string, std::string>;
  void add(const std::string& group, const std::string& operation, const Traffic& traffic) {
    const std::lock_guard lock(mutex_);
    table_[{group, operation}] += traffic;
  }
  std::map<Key, Traffic> table() const {
    const std::lock_guard lock(mutex_);
    return table_;
  }
  Traffic of(const std::string& group, const std::string& operation) const {
    const std::lock_guard lock(mutex_);
    const auto found = table_.find({group, operation});
    return found == table_.end() ? Traffic{} : found->second;
  }
  Traffic total() const {
    const std::lock_guard lock(mutex_);
    Traffic sum;
    for (const auto& [key, traffic] : table_) sum += traffic;
    return sum;
  }
  void reset() {
    const std::lock_guard lock(mutex_);
    table_.clear();
  }

 private:
  mutable std::mutex mutex_;
  std::map<Key, Traffic> table_;
};

}  // namespace sinew
