// Routed experts that stay on disk: a cache of the most used ones in memory, the others read when the router
// asks for them, or before, when it is seen to be about to.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "engine/linear.hpp"

namespace sinew::engine {

struct Model;

struct ExpertCounts {
  std::int64_t hits = 0;      // in memory when asked for
  std::int64_t foreseen = 0;  // being read by then
  std::int64_t misses = 0;
  std::int64_t prefetched = 0;  // reads begun ahead
  std::uint64_t bytes_read = 0;
  double wait_seconds = 0;  // for the disk
  double hit_rate() const {
    const auto all = static_cast<double>(hits + foreseen + misses);
    return all > 0 ? static_cast<double>(hits) / all : 0;
  }
};

class ExpertStore {
 public:
  // Takes the routed experts of `model` out of its maps: from then on they are read from the files, into
  // `bytes` of memory. Throws UserError when that does not hold the experts of one token.
  ExpertStore(Model& model, std::uint64_t bytes);
  ~ExpertStore();
  ExpertStore(const ExpertStore&) = delete;
  ExpertStore& operator=(const ExpertStore&) = delete;

  // How many experts may be held at once.
  index_t capacity() const;
  // Begins reading what is not in memory, so that a later hold() waits less; gives up where there is no room.
  void prefetch(index_t layer, std::span<const std::int32_t> experts);
  // Counts a use of each and begins reading those that are missing. At most capacity() experts.
  void request(index_t layer, std::span<const std::int32_t> experts);
  // Waits until all that were requested are there; they stay until release().
  void hold();
  const SwigluWeights* weights(index_t layer, std::int32_t expert) const;  // of one that is held
  void release();

  const ExpertCounts& counts() const;
  std::uint64_t expert_bytes() const;  // of all routed experts, on disk
  const char* way() const;             // how they are read

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace sinew::engine
